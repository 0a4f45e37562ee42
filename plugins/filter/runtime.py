"""Filters for the configuration of Docker and apt."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.host import same_repository
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import as_dict, numbers

CDI_BY_ITSELF = (28, 3)


def without_nvidia(daemon: Mapping[str, Any], before: Mapping[str, bool]) -> dict[str, Any]:
    """`daemon` (daemon.json) without what nvidia-ctk added; `before` says what was there already."""
    rest = copy.deepcopy(dict(daemon))
    for section, key, kept in (("runtimes", "nvidia", "nvidia_runtime"), ("features", "cdi", "cdi")):
        if not before[kept] and isinstance(rest.get(section), dict):
            rest[section].pop(key, None)
            if not rest[section]:
                del rest[section]
    return rest


def daemon_lacks_gpu(daemon: Mapping[str, Any], access: str, version: str | None) -> bool:
    """Whether Docker has to be told of the GPU; with CDI on, it needs neither a runtime nor a restart.

    `access` is cdi or runtime. Docker reads CDI specifications by itself from 28.3 on, unless features.cdi is false.
    """
    if access == "runtime":
        return "nvidia" not in as_dict(daemon.get("runtimes"))
    return not as_dict(daemon.get("features")).get("cdi", numbers(version) >= CDI_BY_ITSELF)


def repository_files(state: Mapping[str, Any], repository: Mapping[str, str]) -> list[str]:
    """Files by which somebody else has configured apt for `repository` (the keys name and url)."""
    own = f"/etc/apt/sources.list.d/{repository['name']}.sources"
    wanted = same_repository(str(repository["url"]), state["arch"])
    return [
        str(one["file"])
        for one in state.get("apt") or ()
        if one["file"] != own and wanted and same_repository(one["uri"], state["arch"]) == wanted
    ]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "daemon_lacks_gpu": daemon_lacks_gpu,
            "repository_files": repository_files,
            "without_nvidia": without_nvidia,
        }
