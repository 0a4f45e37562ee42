"""Action plugin of dgx_vllm_health: waits on the operator's side, shows progress and evaluates the result.

The module looks once. The waiting is here, so that the operator sees how far the server is and no connection is
held open for the half hour that weights may take to load.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "dgx_vllm.spark.dgx_vllm_health"
REPEAT_S = 30.0
"""Seconds after which a line is printed although nothing changed."""

OWN = {
    "timeout": {"type": "int", "default": 0},
    "interval": {"type": "float", "default": 5},
    "fail": {"type": "bool", "default": True},
    "mode": {"type": "str", "default": "full", "choices": ["probe", "full"]},
}

Result = dict[str, Any]
Look = Callable[[str, int], Result]
"""(mode, restarts_before) -> the module's result."""


class Progress:
    """Prints a line when the phase or the progress changed, or every REPEAT_S seconds."""

    def __init__(self, host: str, show: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._host = host
        self._show = show
        self._clock = clock
        self._last: tuple[str, str] | None = None
        self._at = 0.0

    def report(self, probe: Result) -> None:
        """Print how far the server is, unless that was printed just now."""
        state = (str(probe.get("phase", "")), str(probe.get("progress", "")))
        if state == self._last and self._clock() - self._at < REPEAT_S:
            return
        self._last, self._at = state, self._clock()
        self._show(f"{self._host}: {describe(probe)} ({probe.get('elapsed_s', 0)} s)")


def describe(probe: Result) -> str:
    """Phase and progress in words: "loading weights 40 %"."""
    phase, progress = str(probe.get("phase", "unknown")), str(probe.get("progress", ""))
    what, colon, percent = progress.rpartition(": ")
    if not colon or not percent.endswith("%"):
        return f"{phase}, {progress}" if progress else phase
    share = f"{percent[:-1]} %"
    return f"{phase} {share}" if "checkpoint shards" in what else f"{phase}, {what} {share}"


def wait(look: Look, progress: Progress, timeout: float, interval: float, clock: Any = time) -> Result:
    """Look until the server is ready, its unit has failed or `timeout` seconds are over; the last probe.

    The restart counter of the first look is the base: a higher one later means that the server died and came back.
    """
    begun = clock.monotonic()
    restarts = -1
    while True:
        probe = look("probe", restarts)
        waited = clock.monotonic() - begun
        probe["waited_s"] = int(waited)
        if "phase" not in probe or probe.get("failed_unit") or probe.get("ready"):
            return probe
        if restarts < 0:
            restarts = int(probe.get("n_restarts", 0))
        if waited + interval > timeout:
            probe["timed_out"] = timeout > 0
            return probe
        progress.report(probe)
        clock.sleep(interval)


def evaluate(result: Result, host: str, own: dict[str, Any], check_mode: bool) -> Result:
    """Turn what the module found into a task result: failed or not, and one message."""
    if "phase" not in result:
        return result
    for row in result.get("checks", []):
        row["where"] = host
    summary = str(result.get("summary", ""))
    result["msg"] = f"{host}: {summary}"
    if result.get("timed_out"):
        result["msg"] = (
            f"{host}: the server did not answer within {own['timeout']} s; its last phase was {describe(result)}."
            " Raise dgx_vllm_health_timeout if it makes progress; otherwise read its log with journalctl on the node."
        )
    if own["mode"] == "probe":
        return result
    if check_mode:
        reason = (
            "there is no such unit yet; check mode does not install one"
            if not result.get("unit_exists")
            else "the server is not up, and check mode does not wait"
            if not result.get("ready")
            else ""
        )
        return {**result, "skipped": True, "skip_reason": reason} if reason else result
    if not result.get("healthy") and own["fail"]:
        result["failed"] = True
    return result


def own_arguments(args: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The arguments the action plugin itself uses, with their types, and the first error in them or ""."""
    validated = ArgumentSpecValidator(OWN).validate({key: args[key] for key in OWN if key in args})
    errors = validated.error_messages
    return dict(validated.validated_parameters), str(errors[0]) if errors else ""


class ActionModule(ActionBase):  # type: ignore[misc]
    """dgx_vllm_health on the operator's side."""

    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Wait, check, evaluate."""
        variables = task_vars or {}
        result: Result = super().run(tmp, variables)
        host = str(variables.get("inventory_hostname", "node"))
        args = dict(self._task.args)
        own, error = own_arguments(args)
        if error:
            return {**result, "failed": True, "msg": f"{MODULE}: {error}"}
        show = Display().display

        def look(mode: str, restarts_before: int) -> Result:
            given = {**args, "mode": mode, "restarts_before": restarts_before}
            return dict(self._execute_module(module_name=MODULE, module_args=given, task_vars=variables))

        check_mode = bool(self._task.check_mode)
        timeout = 0 if check_mode or own["mode"] == "probe" else own["timeout"]
        probe = wait(look, Progress(host, show, time.monotonic), timeout, own["interval"])
        if probe.get("ready") and own["mode"] == "full":
            waited = probe["waited_s"]
            probe = {**look("full", int(probe["n_restarts"])), "waited_s": waited}
        result.update(probe)
        return evaluate(result, host, own, check_mode)
