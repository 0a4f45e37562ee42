"""Filter for Docker's configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Callable


def without_nvidia(daemon: Mapping[str, Any], before: Mapping[str, bool]) -> dict[str, Any]:
    """`daemon` (daemon.json) without what nvidia-ctk added; `before` says what was there already."""
    rest = copy.deepcopy(dict(daemon))
    for section, key, kept in (("runtimes", "nvidia", "nvidia_runtime"), ("features", "cdi", "cdi")):
        if not before[kept] and section in rest:
            rest[section].pop(key, None)
            if not rest[section]:
                del rest[section]
    return rest


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"without_nvidia": without_nvidia}
