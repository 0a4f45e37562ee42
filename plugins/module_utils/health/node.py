"""What the health check reads from a node: the unit, its log, the container. Nothing is changed."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any, Callable, NamedTuple, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils import systemd
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Completed, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import split_runs
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain

TimedRunner = Callable[[Sequence[str], float], Completed]
"""(argument vector, limit in seconds) -> Completed."""

LOG_BYTES = 4 * 1024 * 1024
"""The first bytes of a run's log: everything up to serving, many times over."""

_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "InvocationID", "ExecMainStatus",
    "ExecMainStartTimestampMonotonic", "Job",
)  # fmt: skip


class Unit(NamedTuple):
    """A systemd unit as `systemctl show` tells it; `elapsed_s` is seconds since its process was started."""

    load_state: str
    active_state: str
    sub_state: str
    result: str
    n_restarts: int
    invocation_id: str
    exit_status: int
    elapsed_s: int
    job: bool
    error: str

    @property
    def exists(self) -> bool:
        """Whether systemd knows the unit."""
        return self.load_state not in ("", "not-found")

    @property
    def restarting(self) -> bool:
        """Whether its process has just ended and systemd waits to start it again."""
        return self.sub_state.startswith("auto-restart")

    def failed(self, restarts_before: int) -> bool:
        """Whether it has failed: given up, not started, waiting for a restart, or restarted since."""
        if self.restarting or self.active_state == "failed":
            return True
        if self.active_state == "inactive" and not self.job:
            return True
        return restarts_before >= 0 and self.n_restarts > restarts_before

    def describe(self) -> str:
        """Its state in words."""
        if self.error:
            return self.error
        if not self.exists:
            return "there is no such unit"
        text = f"{self.active_state} ({self.sub_state})"
        if self.active_state in ("failed", "inactive") or self.restarting:
            text += f", result {self.result}, exit status {self.exit_status}"
        if self.n_restarts:
            text += f", {self.n_restarts} restart{'s' if self.n_restarts > 1 else ''}"
        return text


class Container(NamedTuple):
    """The serving container: its image, its environment and the arguments it was started with."""

    running: bool
    image_id: str
    environment: dict[str, str]
    arguments: list[str]
    error: str

    def option(self, name: str) -> str | None:
        """The value of an option the server was started with; "" for a bare flag, None if it is absent."""
        try:
            words = self.arguments + shlex.split(self.environment.get("VLLM_EXTRA_ARGS", ""))
        except ValueError:
            words = list(self.arguments)
        value: str | None = None
        for index, word in enumerate(words):
            key, equals, inline = word.partition("=")
            if key.replace("_", "-") != name:
                continue
            following = words[index + 1] if index + 1 < len(words) else ""
            value = inline if equals else ("" if following.startswith("-") else following)
        return value


class Watch(NamedTuple):
    """What the watch of a replica knows; `phase` is "" before its first look."""

    active: bool
    phase: str
    desired: str
    reason: str
    restarts: int

    @property
    def gave_up(self) -> bool:
        """Whether the replica shall not run: the watch gave up, or somebody stopped it."""
        return self.phase == "stopped"

    @property
    def restarting(self) -> bool:
        """Whether the nodes wait for each other to start again."""
        return self.phase in ("ending", "held")

    @property
    def ready(self) -> bool:
        """Whether all nodes run and the head serves."""
        return self.active and self.phase == "ready"

    def describe(self) -> str:
        """Its state in words."""
        text = f"the replica is {self.phase or 'not looked at yet'}"
        if self.restarts:
            text += f", {self.restarts} restart{'s' if self.restarts > 1 else ''}"
        return f"{text}: {self.reason}" if self.reason and self.phase != "ready" else text


class Node:
    """Read-only access to one node's unit, log and container."""

    def __init__(self, unit: str, container: str, runner: TimedRunner = run) -> None:
        self.unit_name = unit
        self.container_name = container
        self._run = runner

    def unit(self) -> Unit:
        """The unit's state now."""
        values, complaint = systemd.show(lambda argv: self._run(argv, 15.0), self.unit_name, _PROPERTIES)
        if complaint:
            return Unit("", "", "", "", 0, "", 0, 0, False, f"systemctl show failed: {complaint}")
        started = _number(values.get("ExecMainStartTimestampMonotonic")) / 1e6
        elapsed = int(max(0.0, time.monotonic() - started)) if started else 0
        return Unit(
            values.get("LoadState", ""),
            values.get("ActiveState", ""),
            values.get("SubState", ""),
            values.get("Result", ""),
            _number(values.get("NRestarts")),
            values.get("InvocationID", ""),
            _number(values.get("ExecMainStatus")),
            elapsed,
            _number(values.get("Job")) != 0,
            "",
        )

    def watch(self, unit: str, memory: str) -> Watch:
        """The watch of the replica: its unit, and what it last wrote down."""
        active = self._run(["systemctl", "is-active", unit], 15.0).stdout.strip() == "active"
        done = self._run(["cat", memory], 5.0)
        try:
            report = json.loads(done.stdout) if done.rc == 0 else {}
        except ValueError:
            report = {}
        return Watch(
            active,
            str(report.get("phase", "")),
            str(report.get("desired", "")),
            str(report.get("reason", "")),
            len(report.get("restarts") or []),
        )

    def run_log(self, invocation_id: str) -> tuple[str, str]:
        """The first LOG_BYTES of one run's log: (source, text), with source "none" if there is no log."""
        if invocation_id:
            match = f"_SYSTEMD_INVOCATION_ID={invocation_id}"
            text = self._head(["journalctl", "--no-pager", "-q", "-o", "cat", "-u", self.unit_name, match])
            if text.strip():
                return "journal", text
        return "none", ""

    def container_log(self) -> str:
        """The log of the running container as Docker keeps it, at most LOG_BYTES of it."""
        return self._head(["docker", "logs", self.container_name])

    def failed_log(self, unit: Unit) -> list[str]:
        """The lines of the run that failed: the current one when it has ended, else the one before it."""
        fields = "--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID"
        argv = ["journalctl", "--no-pager", "-q", "-n", "3000", "-o", "json", fields, "-u", self.unit_name]
        done = self._run(argv, 30.0)
        runs = [(name, lines) for name, lines in split_runs(done.stdout) if name and lines]
        if unit.active_state in ("active", "activating") and not unit.restarting:
            earlier = [entry for entry in runs if entry[0] != unit.invocation_id]
            runs = earlier or runs
        if not runs:
            return []
        newest = runs[-1][1]
        if len(runs) > 1 and unit.n_restarts > 0 and not explain("\n".join(newest)):
            return runs[-2][1] if explain("\n".join(runs[-2][1])) else newest
        return newest

    def container(self) -> Container:
        """The container, or why it cannot be read."""
        done = self._run(["docker", "container", "inspect", self.container_name], 20.0)
        if done.rc != 0:
            return Container(False, "", {}, [], done.complaint or "docker container inspect failed")
        try:
            data = json.loads(done.stdout)[0]
            config = data.get("Config") or {}
            pairs = (str(item).partition("=") for item in config.get("Env") or [])
            return Container(
                bool((data.get("State") or {}).get("Running")),
                str(data.get("Image", "")),
                {key: value for key, _equals, value in pairs},
                [str(word) for word in config.get("Cmd") or []],
                "",
            )
        except (ValueError, IndexError, AttributeError) as error:
            return Container(False, "", {}, [], f"docker container inspect gave no readable JSON: {error}")

    def execute(self, argv: Sequence[str], timeout: float) -> Completed:
        """Run a command in the container."""
        return self._run(["docker", "exec", self.container_name, *argv], timeout)

    def execute_json(self, argv: Sequence[str], timeout: float) -> tuple[dict[str, Any], str]:
        """The JSON object a command in the container prints: (object, "") or ({}, why there is none)."""
        done = self.execute(argv, timeout)
        if done.rc != 0:
            return {}, done.complaint or f"{argv[0]} ended with {done.rc}"
        try:
            data = json.loads(done.stdout)
        except ValueError:
            return {}, f"{' '.join(argv[:3])} printed no JSON"
        return (data, "") if isinstance(data, dict) else ({}, f"{' '.join(argv[:3])} printed no JSON object")

    def _head(self, argv: Sequence[str]) -> str:
        script = f'"$@" 2>&1 | head -c {LOG_BYTES}'
        done = self._run(["sh", "-c", script, "sh", *argv], 30.0)
        return done.stdout if done.rc == 0 else ""


def _number(text: str | None) -> int:
    try:
        return int(text or "0")
    except ValueError:
        return 0
