"""Filter over the role's variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.variables import mistakes


class FilterModule:
    """Filters for validating the role's variables."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mistakes": mistakes}
