"""The commands with which the health check reads a node: its unit, watch, logs and container. Nothing is changed."""

from __future__ import annotations

import inspect
import json
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils import systemd
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Completed, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.firewall.table import is_loaded
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health import inside
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container, Unit, Watch
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import split_runs
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.record import Records, read_records
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import cdi

TimedRunner = Callable[[Sequence[str], float], Completed]
"""(argument vector, limit in seconds) -> Completed."""

LOG_BYTES = 4 * 1024 * 1024
"""The first bytes of a run's log: everything up to serving, many times over."""

_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "InvocationID", "ExecMainStatus",
    "ExecMainStartTimestampMonotonic", "InactiveExitTimestampMonotonic", "Job",
)  # fmt: skip


class Document(NamedTuple):
    """A JSON object out of the container, or why there is none."""

    content: Mapping[str, Any] = MappingProxyType({})
    error: str = ""


class Inside(NamedTuple):
    """What the container itself tells: see inside.py. `shipped` and `tuned` are names of MoE config files."""

    manifest: Document = Document()
    records: Records = Records()
    shipped: frozenset[str] = frozenset()
    tuned: frozenset[str] = frozenset()


class Node:
    """Read-only access to one node; `runner` runs the commands (tests pass a fake)."""

    def __init__(self, unit: str, container: str, runner: TimedRunner = run, root: Path = Path("/")) -> None:
        self.unit_name = unit
        self.container_name = container
        self._run = runner
        self._root = root

    def driver(self) -> dict[str, str | None]:
        """Versions of the driver that is loaded and of the one that is installed."""
        return cdi.driver(self._root)

    def firewall(self) -> bool:
        """Whether the kernel has the firewall's rules as they were kept."""
        return is_loaded(self._root, lambda argv: self._run(argv, 15.0))

    def unit(self) -> Unit:
        """The unit's state now."""
        values, complaint = systemd.show(lambda argv: self._run(argv, 15.0), self.unit_name, _PROPERTIES)
        if complaint:
            return Unit(error=f"systemctl show failed: {complaint}")
        return unit_of(values, time.monotonic())

    def watch(self, unit: str, file: str) -> Watch:
        """The watch of the replica: its unit, and the report it last wrote to `file`."""
        active = self._run(["systemctl", "is-active", unit], 15.0).stdout.strip() == "active"
        done = self._run(["cat", file], 5.0)
        return parse_watch(active, done.stdout if done.rc == 0 else "{}")

    def run_log(self, invocation_id: str) -> str:
        """The first LOG_BYTES that the journal has of one run; "" if there are none."""
        if not invocation_id:
            return ""
        match = f"_SYSTEMD_INVOCATION_ID={invocation_id}"
        return self._head(["journalctl", "--no-pager", "-q", "-o", "cat", "-u", self.unit_name, match])

    def container_log(self) -> str:
        """The log of the running container as Docker keeps it, at most LOG_BYTES of it."""
        return self._head(["docker", "logs", self.container_name])

    def failed_log(self, unit: Unit) -> list[str]:
        """The lines of the run that failed: the current one when it has ended, else the previous one."""
        fields = "--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID"
        argv = ["journalctl", "--no-pager", "-q", "-n", "3000", "-o", "json", fields, "-u", self.unit_name]
        return failed_run(split_runs(self._run(argv, 30.0).stdout), unit)

    def container(self) -> Container:
        """The container, or why it cannot be read."""
        done = self._run(["docker", "container", "inspect", self.container_name], 20.0)
        if done.rc != 0:
            return Container(error=done.complaint or "docker container inspect failed")
        return parse_container(done.stdout)

    def inside(self) -> Inside:
        """What the container itself tells; a container without Python has none of it."""
        argv = ["docker", "exec", self.container_name, "python3", "-I", "-c", inspect.getsource(inside)]
        done = self._run(argv, 60.0)
        return parse_inside(done.stdout if done.rc == 0 else "", done.complaint)

    def _head(self, argv: Sequence[str]) -> str:
        script = f'"$@" 2>&1 | head -c {LOG_BYTES}'
        done = self._run(["sh", "-c", script, "sh", *argv], 30.0)
        return done.stdout if done.rc == 0 else ""


def unit_of(values: Mapping[str, str], now: float) -> Unit:
    """The unit with these properties; `now` is the monotonic clock in seconds."""
    # Before its process starts, the unit may wait (ExecStartPre).
    moments = ("ExecMainStartTimestampMonotonic", "InactiveExitTimestampMonotonic")
    started = next((_number(values.get(name)) for name in moments if _number(values.get(name))), 0) / 1e6
    return Unit(
        values.get("LoadState", ""),
        values.get("ActiveState", ""),
        values.get("SubState", ""),
        values.get("Result", ""),
        _number(values.get("NRestarts")),
        values.get("InvocationID", ""),
        _number(values.get("ExecMainStatus")),
        int(max(0.0, now - started)) if started else 0,
        _number(values.get("Job")) != 0,
    )


def parse_watch(active: bool, text: str) -> Watch:
    """The watch's own report; one that cannot be read counts as none."""
    report = _object(text) or {}
    restarts = report.get("restarts")
    return Watch(
        active,
        str(report.get("phase", "")),
        str(report.get("desired", "")),
        str(report.get("reason", "")),
        len(restarts) if isinstance(restarts, list) else 0,
    )


def parse_container(text: str) -> Container:
    """The output of `docker container inspect` for one container."""
    try:
        data = json.loads(text)[0]
        config = data.get("Config") or {}
        pairs = (str(item).partition("=") for item in config.get("Env") or [])
        return Container(
            bool((data.get("State") or {}).get("Running")),
            str(data.get("Image", "")),
            {key: value for key, _equals, value in pairs},
            tuple(str(word) for word in config.get("Cmd") or []),
            release=str((config.get("Labels") or {}).get("dgx-vllm.release", "")),
        )
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        return Container(error=f"docker container inspect printed no readable JSON: {error}")


def parse_inside(text: str, complaint: str) -> Inside:
    """The output of inside.py; `complaint` is why there may be none."""
    told = _object(text)
    if told is None:
        return Inside(Document({}, complaint or "the container printed no JSON object"))
    manifest = told.get("manifest")
    manifest = manifest if isinstance(manifest, dict) else {}
    content = _object(manifest.get("text"))
    error = "" if content is not None else str(manifest.get("error") or "it is not a JSON object")[:300]
    return Inside(
        Document(content or {}, error),
        read_records(told.get("records")),
        _names(told.get("shipped")),
        _names(told.get("tuned")),
    )


def _object(text: Any) -> dict[str, Any] | None:
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _names(value: Any) -> frozenset[str]:
    return frozenset(str(name) for name in value) if isinstance(value, list) else frozenset()


def failed_run(runs: Sequence[tuple[str, list[str]]], unit: Unit) -> list[str]:
    """Of `runs`, oldest first, the lines of the one that failed.

    A unit that runs again has failed in an earlier run. A run that was ended before it said anything known may be
    systemd's next attempt: then the previous one has the cause.
    """
    runs = [(name, lines) for name, lines in runs if name and lines]
    if unit.active_state in ("active", "activating") and not unit.restarting:
        runs = [entry for entry in runs if entry[0] != unit.invocation_id] or runs
    if not runs:
        return []
    newest = runs[-1][1]
    if len(runs) > 1 and unit.n_restarts > 0 and not explain("\n".join(newest)):
        previous = runs[-2][1]
        return previous if explain("\n".join(previous)) else newest
    return newest


def _number(text: str | None) -> int:
    """A property of systemd, whose numbers have 64 bits; 0 for anything else."""
    try:
        number = int(text or "0")
    except ValueError:
        return 0
    return number if abs(number) < 2**64 else 0
