"""Filters that write sentences for the operator."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.messages import (
    explain_text,
    preflight_sentences,
    speeds,
)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"explain_text": explain_text, "preflight_sentences": preflight_sentences, "speeds": speeds}
