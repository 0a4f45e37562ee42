"""The watch's data, and the interfaces to its surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, Protocol

UP, DOWN = "up", "down"

NEW = "new"
"""Nothing is recorded yet."""
STOPPED = "stopped"
"""Must not run: an operator stopped the replica, or the watch gave up."""
ENDING = "ending"
"""Must run again, and its old run has not ended yet."""
HELD = "held"
"""Must run; its old run has ended, and it waits until those of all peers have."""
STARTING = "starting"
"""Runs and does not serve yet."""
READY = "ready"
"""Serves."""

RUNNING = (STARTING, READY)

UNKNOWN = "unknown"
"""State of a unit about which systemd did not answer."""

REFUSED = "exec-condition"
"""Result of a unit whose own check refused the start: the machine died twice during it (files/start.py)."""

NOT_STARTED = (125, 126, 127)
"""Exit statuses of `docker run` for a container that did not start: no device, no image, no command."""

STOPPED_BY_ORDER = 143
"""Exit status of vLLM's container after SIGTERM. By itself it ends with another status, such as 0."""


@dataclass(frozen=True)
class Settings:
    """One node's part. Times are seconds.

    For `boot_grace` after a boot, containers that Docker cannot start are no failures: devices, rails and CDI may come
    late, and the other nodes later still. They are tried again every `boot_retry`.
    """

    host: str
    rank: int
    peers: tuple[str, ...]
    head: str
    peer_grace: float = 15.0
    stall: float = 120.0
    probe_interval: float = 60.0
    probe_deadline: float = 30.0
    urgent_deadline: float = 10.0
    probe_failures: int = 2
    start_grace: float = 60.0
    start_timeout: float = 1800.0
    backoff: float = 5.0
    backoff_limit: float = 300.0
    failure_limit: int = 3
    failure_window: float = 3600.0
    boot_grace: float = 600.0
    boot_retry: float = 15.0

    @property
    def is_head(self) -> bool:
        """Whether this node has the API."""
        return self.rank == 0


@dataclass(frozen=True)
class Unit:
    """The server's unit as systemd shows it; `run` is the invocation ID, `status` the last exit status.

    `ordered`: the unit was being stopped before its server ended, so the server did not end by itself.
    `begun`: its server was started; before, the unit waits for devices and addresses.
    """

    active: str
    run: str = ""
    status: int = 0
    main_pid: int = 0
    result: str = "success"
    ordered: bool = False
    begun: bool = True

    @property
    def up(self) -> bool:
        """Whether it runs or is on its way to."""
        return self.active in ("active", "activating", "reloading")

    @property
    def down(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.active in ("inactive", "failed")

    @property
    def refused(self) -> bool:
        """Whether it refused to start."""
        return self.down and self.result == REFUSED

    @property
    def not_started(self) -> bool:
        """Whether its last start failed before there was a server."""
        return self.down and (self.status in NOT_STARTED or not self.begun)


@dataclass(frozen=True)
class Metrics:
    """Requests that run now, tokens generated since the server's start, and the share of the KV cache in use (0 to 1).

    A prompt's tokens are counted with the first one of its answer; until then only the cache grows.
    """

    running: float
    tokens: float
    cache: float


@dataclass
class Report:
    """What a watch publishes, and keeps over its own restart.

    Moments are seconds since the epoch, because they outlive a boot; `pause` is seconds from the generation's
    beginning to its start.
    """

    host: str
    generation: int = 0
    desired: str = DOWN
    phase: str = NEW
    run: str = ""
    reason: str = ""
    pause: float = 0.0
    ready_at: float = 0.0
    failures: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Report:
        """The report in `data`, which another machine or a disk gave; ValueError if it is not one.

        A phase that this version does not know is kept: it counts as neither running nor waiting.
        """
        if not isinstance(data, dict):
            raise ValueError("not a report of a watch")
        generation, desired = data.get("generation"), data.get("desired")
        if isinstance(generation, bool) or not isinstance(generation, int) or not 0 <= generation <= MOST:
            raise ValueError(f"the generation of a watch is {str(generation)[:40]!r}")
        if desired not in (UP, DOWN):
            raise ValueError(f"a watch wants {str(desired)[:40]!r}")
        return cls(
            host=_text(data, "host"),
            generation=generation,
            desired=desired,
            phase=_text(data, "phase"),
            run=_text(data, "run", ""),
            reason=_text(data, "reason", ""),
            pause=_seconds(data.get("pause", 0)),
            ready_at=_seconds(data.get("ready_at", 0)),
            failures=_moments(data.get("failures", [])),
            restarts=_moments(data.get("restarts", [])),
        )


MOST = 10**9
"""More than any count of common starts, and than any list or text of a watch."""
LATEST = 1e12
"""Seconds: more than any moment or length of time, and less than what float() cannot hold."""
LONGEST = {"host": 255, "phase": 40, "run": 64, "reason": 1000}


def _text(data: Mapping[str, Any], name: str, default: Optional[str] = None) -> str:
    value = data.get(name, default)
    if not isinstance(value, str) or len(value) > LONGEST[name] or not value.isprintable():
        raise ValueError(f"the {name} of a watch is {str(value)[:40]!r}")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LATEST:
        raise ValueError(f"a time of a watch is {str(value)[:40]!r}")
    return float(value)


def _moments(values: Any) -> list[float]:
    if not isinstance(values, list) or len(values) > 1000:
        raise ValueError("a watch counts faults that are not a list")
    return [_seconds(value) for value in values]


class Units(Protocol):
    """The node's service manager."""

    def show(self) -> Unit:
        """The unit now."""

    def start(self) -> None:
        """Start it and do not wait."""

    def stop(self, hard: bool) -> None:
        """Stop it and do not wait; `hard` kills the server first if it would not end by itself."""

    def shutting_down(self) -> bool:
        """Whether the machine itself is going down."""


class Api(Protocol):
    """The head's server."""

    def healthy(self) -> bool:
        """Whether /health returns 200."""

    def metrics(self) -> Optional[Metrics]:
        """The counters; None when they cannot be read."""

    def begin_probe(self, deadline: float) -> None:
        """Ask for one token, in the background, for at most `deadline` seconds."""

    def probe_result(self) -> Optional[bool]:
        """Of the last probe: True for a token in time, False for none, None while it runs or if none was begun."""
