"""The checks of a node before anything on it is changed: one finding per check, pass, warn or fail.

Pure functions over what the module dgx_vllm_state read and a dictionary of settings (the role's variables).
Numbers without a source are the role's own defaults; the others say where they come from, and what only users
have reported is marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight import host as on_host
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight import server as on_server
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.drift import NAMES as DRIFT
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.drift import accepting
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import Settings, State

CHECKS: dict[str, Callable[[Check, State, Settings], Finding]] = {
    "gpu": on_host.gpu,
    "driver": on_host.driver,
    "architecture": on_host.architecture,
    "os": on_host.operating_system,
    "kernel": on_host.kernel,
    "kernel_module": on_host.kernel_module,
    "apt": on_host.apt,
    "docker": on_host.docker,
    "cgroup_driver": on_host.cgroup_driver,
    "containers": on_host.containers,
    "container_name": on_host.container_name,
    "units": on_host.units,
    "memory": on_server.memory,
    "swap": on_server.swap,
    "desktop": on_server.desktop,
    "disk_docker": on_server.disk_docker,
    "disk_models": on_server.disk_models,
    "model": on_server.model,
    "heads": on_server.heads,
    "port": on_server.port,
    "time_sync": on_host.time_sync,
    "exposure": on_server.exposure,
    "isolation": on_server.isolation,
    "fabric_prefix": on_server.fabric_prefix,
}
"""Public names, in the order of the report. Users put them into `dgx_vllm_preflight_accept`."""


def preflight(
    state: State, settings: Settings, where: str = "", only: Collection[str] = CHECKS
) -> list[Finding]:
    """The findings of the checks in `only`, in order, and a failed one for each accepted name that no check has."""
    accepted = set(settings.get("accept") or [])
    findings = [_finding(Check(where, name), state, settings) for name in CHECKS if name in only]
    unknown = Check(where, "accept")
    return accepting(findings, settings) + [
        unknown.failed(
            str(name),
            "dgx_vllm_preflight_accept names a check that does not exist",
            f"use one of {', '.join((*CHECKS, *DRIFT))}",
        )
        for name in sorted(accepted - set(CHECKS) - set(DRIFT))
    ]


def _finding(check: Check, state: State, settings: Settings) -> Finding:
    try:
        return CHECKS[check.name](check, state, settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return check.failed(
            "not readable",
            f"what was read from the node does not answer this check ({type(error).__name__}: {error})",
            "run dgx_vllm_state of the same collection version on this node and look at its result",
        )
