"""Judging a node before anything on it is changed: one named check a row, pass, warn or fail.

Pure functions over what the module dgx_vllm_state read and a dictionary of settings (the role's variables).
Figures without a source are the role's own defaults; the others say where they come from, and what only users
have reported is marked so.
"""

from __future__ import annotations

from typing import Callable

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight import host as on_host
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight import server as on_server
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.drift import NAMES as DRIFT
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.verdict import (
    Row,
    Settings,
    State,
    Verdict,
    failed,
)

Check = Callable[[State, Settings], Verdict]

CHECKS: dict[str, Check] = {
    "gpu": on_host.gpu,
    "driver": on_host.driver,
    "architecture": on_host.architecture,
    "os": on_host.operating_system,
    "kernel": on_host.kernel,
    "kernel_module": on_host.kernel_module,
    "docker": on_host.docker,
    "cgroup_driver": on_host.cgroup_driver,
    "memory": on_server.memory,
    "swap": on_server.swap,
    "disk_docker": on_server.disk_docker,
    "disk_models": on_server.disk_models,
    "port": on_server.port,
    "time_sync": on_host.time_sync,
    "exposure": on_server.exposure,
}
"""Public names, in the order of the report. Users put them into `dgx_vllm_preflight_accept`."""


def _judged(name: str, check: Check, state: State, settings: Settings, accepted: bool) -> Row:
    try:
        verdict = check(state, settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        verdict = failed(
            "not readable",
            f"what was read of the node does not answer this check ({type(error).__name__}: {error})",
            "run dgx_vllm_state of the same collection version on this node and look at its result",
        )
    status, reason = verdict.status, verdict.reason
    if status == "fail" and accepted:
        status, reason = "warn", f"accepted: {reason}"
    return Row(name, status, verdict.found, reason, verdict.remedy)


def preflight(state: State, settings: Settings) -> list[Row]:
    """Every check in order, and one failed row more for each accepted name that is no check."""
    accepted = set(settings.get("accept") or [])
    rows = [_judged(name, check, state, settings, name in accepted) for name, check in CHECKS.items()]
    for name in sorted(accepted - set(CHECKS) - set(DRIFT)):
        rows.append(
            Row(
                "accept",
                "fail",
                str(name),
                "dgx_vllm_preflight_accept names a check that does not exist",
                f"use one of {', '.join((*CHECKS, *DRIFT))}",
            )
        )
    return rows
