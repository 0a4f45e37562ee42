"""The decisions: follow a peer that knows more, notice faults, restart the replica as one, give up in the end.

Every node has a number, the generation, that counts the replica's common starts and stops. Whoever notices a fault
takes the next number and ends its own run; whoever sees a higher number adopts it and does the same.
A node starts when all peers have the same number and none has an old run. There is no coordinator that could fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Optional

from replica_watch.model import (
    DOWN,
    ENDING,
    HELD,
    NEW,
    READY,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPED_BY_ORDER,
    UNKNOWN,
    UP,
    Api,
    Report,
    Settings,
    Unit,
    Units,
)
from replica_watch.server_checks import ServerChecks

Peers = Callable[[], Mapping[str, Optional[Report]]]
REMINDER = 60.0
"""Seconds between two lines about the same wait."""


class Watch:
    """One node's watch. `tick` is called every few seconds and never blocks for long."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float],
        uptime: Callable[[], float],
        date: Callable[[], float],
        units: Units,
        peers: Peers,
        api: Api,
        head_listens: Callable[[], bool],
        say: Callable[[str], None],
        save: Callable[[Report], None],
        known: Optional[Report] = None,
    ) -> None:
        self.settings = settings
        self.report = known or Report(settings.host)
        self._clock = clock
        self._uptime = uptime
        self._date = date
        self._units = units
        self._peers = peers
        self._head_listens = head_listens
        self._say = say
        self._save = save
        self._checks = ServerChecks(settings, api)
        self._seen: dict[str, float] = {}
        self._hold_until = 0.0
        self._began = clock()
        self._ended_run = self.report.run
        self._reminded = 0.0
        self._unsaved: Optional[float] = None

    def tick(self) -> None:
        """Check once, and act at most once."""
        now, unit = self._clock(), self._units.show()
        peers = dict(self._peers())
        for host in self.settings.peers:
            self._seen.setdefault(host, now)
            if peers.get(host) is not None:
                self._seen[host] = now
        if unit.active == UNKNOWN:
            return
        if self._is_being_stopped(unit):
            self._stopped(unit, peers)
            return
        if unit.refused and unit.run not in (self.report.run, self._ended_run):
            self._refused(unit, peers)
            return
        if self._follow(now, unit, peers):
            return
        if self.report.phase == NEW:
            self._first_sight(now, unit)
        elif self.report.phase == STOPPED:
            self._while_stopped(now, unit, peers)
        elif self.report.phase in (ENDING, HELD):
            self._while_held(now, unit, peers)
        else:
            self._while_running(now, unit, peers)

    def _is_being_stopped(self, unit: Unit) -> bool:
        """Whether somebody else ordered the unit to stop. Said at once: the peers' servers may end before this one."""
        ours = self.report.phase in RUNNING and unit.run == self.report.run
        ordered = unit.active == "deactivating" and unit.main_pid > 0
        return ours and ordered and not self._units.shutting_down()

    # What the others know

    def _follow(self, now: float, unit: Unit, peers: Mapping[str, Optional[Report]]) -> bool:
        """Take over a higher generation; at the same one a stop wins."""
        mine = self.report
        best = max(
            (report for report in peers.values() if report is not None),
            key=lambda report: (report.generation, report.desired == DOWN, report.host),
            default=None,
        )
        if best is None or best.generation < mine.generation or best.generation == 0:
            return False
        if best.generation == mine.generation and (best.desired == mine.desired or best.desired == UP):
            return False
        fresh = unit.up and unit.run != mine.run
        joins = best.desired == UP and fresh and (mine.phase == NEW or best.phase in (HELD, STARTING))
        mine.generation, mine.desired, mine.reason = best.generation, best.desired, best.reason
        mine.failures, mine.restarts = list(best.failures), list(best.restarts)
        self._pause(min(best.pause, max(self.settings.backoff_limit, self.settings.boot_retry)))
        if joins:
            self._say(f"joins generation {mine.generation} of {best.host} with the run that has just begun")
            self._running(now, unit.run)
        elif best.desired == DOWN:
            self._say(f"stops with {best.host}: {best.reason or 'it was stopped there'}")
            self._end(STOPPED, unit, hard=False)
        else:
            self._say(f"restarts with {best.host}: {best.reason or 'it was restarted there'}")
            self._end(HELD, unit, hard=True)
        return True

    def _gone(self, now: float) -> list[str]:
        """Peers whose watch has not answered for longer than the grace."""
        return [host for host in self.settings.peers if now - self._seen[host] > self.settings.peer_grace]

    # What happened here

    def _first_sight(self, now: float, unit: Unit) -> None:
        if unit.up:
            self.report.generation, self.report.desired = 1, UP
            self._running(now, unit.run)
        elif unit.down:
            self.report.phase, self.report.desired, self.report.run = STOPPED, DOWN, unit.run
            self._remember()

    def _while_stopped(self, now: float, unit: Unit, peers: Mapping[str, Optional[Report]]) -> None:
        if unit.up and unit.run != self.report.run:
            self.report.failures, self.report.restarts = [], []
            self._begun_by_others(now, unit, peers, "it was started")
        elif unit.up:
            self._units.stop(hard=False)

    def _while_held(self, now: float, unit: Unit, peers: Mapping[str, Optional[Report]]) -> None:
        if unit.up and unit.run != self.report.run:
            self._running(now, unit.run)
            return
        if unit.up:
            self._units.stop(hard=True)
            return
        if not unit.down:
            return
        if self.report.phase == ENDING:
            self.report.phase = HELD
            self._remember()
        if now < self._hold_until:
            return
        missing = [host for host in self.settings.peers if peers.get(host) is None]
        behind = [
            report.host
            for report in peers.values()
            if report is not None
            and (report.generation < self.report.generation or report.phase not in (HELD, *RUNNING))
        ]
        if not missing and not behind:
            self._say(f"starts generation {self.report.generation}")
            # Recorded afterwards: a watch that died between the two would take the old run's end for one of this run.
            self._units.start()
            self._running(now, "")
        elif now - self._reminded > REMINDER:
            self._reminded = now
            what = f"{', '.join(missing)} to answer" if missing else f"{', '.join(behind)} to end the old run"
            self._say(f"waits for {what}")

    def _while_running(self, now: float, unit: Unit, peers: Mapping[str, Optional[Report]]) -> None:
        mine = self.report
        if not mine.run and unit.run and unit.run != self._ended_run:
            mine.run = unit.run
            self._remember()
        if not mine.run and unit.down and now - self._began > self.settings.start_grace:
            self._fault(unit, peers, "systemd did not start the unit")
            return
        if unit.up and mine.run and unit.run != mine.run:
            self._begun_by_others(now, unit, peers, "its unit was restarted")
            return
        if unit.down and mine.run:
            self._ended(unit, peers)
            return
        if mine.run and unit.up:
            self._serving(now, unit, peers)

    def _ended(self, unit: Unit, peers: Mapping[str, Optional[Report]]) -> None:
        if self._units.shutting_down():
            return
        # systemd unloads a unit that is not enabled once it has ended well, and loses its status.
        if unit.ordered or unit.status == STOPPED_BY_ORDER or not unit.run:
            self._stopped(unit, peers)
            return
        what = f"status {unit.status}, {unit.result}"
        if unit.not_started and self._uptime() < self.settings.boot_grace:
            self._retry(unit, peers, f"the server was not started after the boot ({what})")
        elif unit.not_started:
            # Without the other node, a cable has no link and its rail no address.
            gone = self._gone(self._clock())
            self._fault(unit, peers, f"the server was not started ({what})", counted=not gone)
        else:
            self._fault(unit, peers, f"the server ended by itself ({what})")

    def _refused(self, unit: Unit, peers: Mapping[str, Optional[Report]]) -> None:
        """This node's machine died twice while the server was starting: the replica waits for an operator."""
        host = self.settings.host
        text = (
            f"{host} waits, as its machine died while the server was starting: read journalctl -u dgx-vllm there, "
            "then run systemctl start dgx-vllm on any node of the replica"
        )
        self._next(peers, DOWN, text)
        self._say(f"the replica stays down: {text}")
        self._end(STOPPED, unit, hard=False)

    def _stopped(self, unit: Unit, peers: Mapping[str, Optional[Report]]) -> None:
        self._next(peers, DOWN, f"the unit was stopped on {self.settings.host}")
        self._say("was stopped, so the replica stops")
        self._end(STOPPED, unit, hard=False)

    def _serving(self, now: float, unit: Unit, peers: Mapping[str, Optional[Report]]) -> None:
        mine, gone = self.report, self._gone(now)
        if self.settings.is_head:
            ready, fault = self._checks.look(now, mine.phase == READY, bool(gone) and mine.phase == READY)
            if fault and gone:
                fault = f"{', '.join(gone)} is gone"
        else:
            head = peers.get(self.settings.head)
            ready = head is not None and head.phase == READY and head.generation == mine.generation
            # The head notices the loss of any other node: its completions fail.
            lost = self.settings.head in gone and mine.phase == READY and not self._head_listens()
            fault = f"{self.settings.head} is gone" if lost else ""
        if fault:
            self._fault(unit, peers, fault, counted=not gone)
        elif mine.phase == STARTING and ready:
            mine.phase, mine.ready_at = READY, self._date()
            self._say(f"generation {mine.generation} is ready after {now - self._began:.0f} s")
            self._remember()
        elif mine.phase == STARTING and now - self._began > self.settings.start_timeout:
            # Only the head's watch knows whether it serves; one that is silent while the head accepts connections may
            # be of another version.
            unknown = self.settings.head in gone and self._head_listens()
            if not unknown:
                self._fault(unit, peers, f"not ready within {self.settings.start_timeout:.0f} s")

    # What is done about it

    def _begun_by_others(
        self, now: float, unit: Unit, peers: Mapping[str, Optional[Report]], reason: str
    ) -> None:
        """A run that this watch did not start: by an operator, at boot, or by systemd's own restart."""
        quiet = all(report is None or report.phase not in (ENDING, *RUNNING) for report in peers.values())
        self._next(peers, UP, f"{reason} on {self.settings.host}")
        if quiet:
            self._running(now, unit.run)
            return
        self._say(f"{reason}: peers have an old run, so the replica restarts")
        self._end(HELD, unit, hard=True)

    def _fault(
        self, unit: Unit, peers: Mapping[str, Optional[Report]], reason: str, counted: bool = True
    ) -> None:
        """Restart the replica, or give up after too many faults of its own, in the window or since it last served."""
        mine, limits, date = self.report, self.settings, self._date()
        since = min(date - limits.failure_window, mine.ready_at)
        mine.failures = [moment for moment in mine.failures if moment > since]
        mine.restarts = [moment for moment in mine.restarts if moment > since]
        if counted:
            mine.failures.append(date)
        if len(mine.failures) > limits.failure_limit:
            minutes = max(limits.failure_window, date - mine.failures[0]) / 60
            text = (
                f"gave up after {len(mine.failures)} failure{'s' * (len(mine.failures) > 1)} within "
                f"{minutes:.0f} minutes, the last one on "
                f"{limits.host}: {reason}; fix it, then run systemctl restart dgx-vllm on any node of the "
                "replica"
            )
            self._next(peers, DOWN, text)
            self._say(text)
            self._end(STOPPED, unit, hard=True)
            return
        delay = limits.backoff * 2 ** (len(mine.restarts) - 1) if mine.restarts else 0.0
        delay = min(delay, limits.backoff_limit)
        mine.restarts.append(date)
        self._next(peers, UP, f"{reason} (seen by {limits.host})", delay)
        self._say(f"{reason}: the replica restarts{f' after {delay:.0f} s' if delay else ''}")
        self._end(HELD, unit, hard=True)

    def _retry(self, unit: Unit, peers: Mapping[str, Optional[Report]], reason: str) -> None:
        """Start the replica again in a moment, without counting a failure."""
        delay = self.settings.boot_retry
        self._next(peers, UP, f"{reason} (seen by {self.settings.host})", delay)
        self._say(f"{reason}: the replica restarts after {delay:.0f} s")
        self._end(HELD, unit, hard=True)

    def _next(
        self, peers: Mapping[str, Optional[Report]], desired: str, reason: str, pause: float = 0.0
    ) -> None:
        known = [report.generation for report in peers.values() if report is not None]
        self.report.generation = max([self.report.generation, *known]) + 1
        self.report.desired, self.report.reason = desired, reason
        self._pause(pause)

    def _pause(self, seconds: float) -> None:
        """Keep the generation from starting here for a while; the report tells the peers how long."""
        self.report.pause = seconds
        self._hold_until = self._clock() + seconds

    def _end(self, phase: str, unit: Unit, hard: bool) -> None:
        """End this node's run and remember which one it was.

        Remembered before: a watch that died between the two would take its own order for an operator's.
        """
        self.report.phase = ENDING if phase == HELD and not unit.down else phase
        self.report.run = unit.run
        self._ended_run = unit.run
        self._remember()
        # systemd is stopping it already, and a second order would cancel the start of `systemctl restart`.
        ending = unit.active == "deactivating" and not hard
        if not unit.down and not ending:
            self._units.stop(hard)

    def _remember(self) -> None:
        """Keep the report on the disk; a disk that is full or read-only keeps nobody from acting."""
        try:
            self._save(self.report)
        except OSError as error:
            now = self._clock()
            if self._unsaved is None or now - self._unsaved > REMINDER:
                self._unsaved = now
                self._say(
                    f"cannot keep its state on the disk ({error.strerror or error}), and goes on without"
                )

    def _running(self, now: float, run: str) -> None:
        self.report.phase, self.report.run = STARTING, run
        self._began, self._reminded = now, 0.0
        self._checks.reset(now)
        self._remember()
