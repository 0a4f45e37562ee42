"""Filters that check the role's variables: misspelt names and wrong values."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.variables import mistakes, unknown_variables


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"mistakes": mistakes, "unknown_variables": unknown_variables}
