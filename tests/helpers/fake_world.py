"""A replica in a fake world: systemd units, vLLM's process group with its measured faults, and the cables.

A second passes with every step. As measured with two real nodes: a process group is formed once, when a process
waits on every node; when a member dies, freezes or loses its cable the others do not notice; the head's /health
keeps saying 200 and completions never come. A worker that is started next to a head of an old group fails after a
while.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Optional

from replica_watch.model import Metrics, Report, Settings, Unit
from replica_watch.watch import Watch

LOAD_SECONDS = 30
SOFT_STOP_SECONDS = 10
BOOT_SECONDS = 20
POISONED_SECONDS = 4
DOCKER_SECONDS = 2
WAIT_SECONDS = 300
"""How long the unit waits for what it lacks, before there is a server."""
EPOCH = 1.7e9
AT_ONCE = LOAD_SECONDS + 6
"""From a fault that is seen at once: two looks, a kill, and the load."""


class Process:
    """A vLLM process: waits for its group, loads, serves; frozen by SIGSTOP."""

    def __init__(self) -> None:
        self.group: Optional[int] = None
        self.ready_at = 0.0
        self.frozen = False
        self.wrong_head = 0


class Node:
    """One machine, its unit and its watch."""

    def __init__(self, world: World, host: str, settings: Settings) -> None:
        self.world, self.host, self.settings = world, host, settings
        self.on = True
        self.enabled = True
        self.back_at = 0.0
        self.process: Optional[Process] = None
        self.run, self.status, self.result = "", 0, "success"
        self.runs = 0
        self.stops_at: Optional[float] = None
        self.again = False
        self.disk: Optional[dict[str, Any]] = None
        self.log: list[str] = []
        self.probe: Optional[tuple[float, float]] = None
        self.crashes = 0
        self.booted_at = float("-inf")
        self.not_started = 0
        self.refuses = False
        self.lacks_rails = False
        self.begun = True
        self.ordered = False
        self.docker_gives_up_at: Optional[float] = None
        self.watch_broken = False
        self.secret = ""
        self.new_watch()

    def new_watch(self) -> None:
        """The watch's process starts; what it saved is on the disk."""
        known = Report.from_json(self.disk) if self.disk else None
        self.watch: Optional[Watch] = Watch(
            self.settings,
            clock=lambda: self.world.now,
            uptime=lambda: self.world.now - self.booted_at,
            date=lambda: self.world.now + EPOCH,
            units=self,
            peers=self.reports,
            api=self,
            head_listens=self.head_listens,
            say=self.say,
            save=self.keep,
            known=known,
        )

    def say(self, text: str) -> None:
        self.log.append(f"{self.world.now:.0f} {text}")

    def keep(self, report: Report) -> None:
        self.disk = report.as_json()

    def reports(self) -> Mapping[str, Optional[Report]]:
        """What the peers' watches answer over the fabric."""
        found: dict[str, Optional[Report]] = {}
        for host in self.settings.peers:
            peer = self.world.nodes[host]
            answers = peer.on and peer.watch is not None and self.world.joined(self.host, host)
            answers = answers and peer.secret == self.secret
            found[host] = peer.watch.report if answers and peer.watch else None
        return found

    def head_listens(self) -> bool:
        """Whether the head's server, frozen or not, takes connections."""
        head = self.world.head
        return head.on and head.process is not None and self.world.joined(self.host, head.host)

    # systemd

    def show(self) -> Unit:
        if self.stops_at is not None:
            return Unit("deactivating", self.run, 0, 42 if self.process else 0)
        if self.process is not None:
            return Unit("active", self.run, 0, 42)
        down = "inactive" if self.result in ("success", "exec-condition") else "failed"
        return Unit(down, self.run, self.status, 0, self.result, self.ordered, self.begun)

    def start(self) -> None:
        """`systemctl start`."""
        if self.process is None:
            self.runs += 1
            self.run = f"{self.host}-{self.runs}"
            self.begun, self.ordered = not self.refuses, False
            if self.refuses:
                self.status, self.result = 0, "exec-condition"
                return
            self.process = Process()
            if self.lacks_rails:
                self.docker_gives_up_at = self.world.now + WAIT_SECONDS
            if self.not_started:
                self.not_started -= 1
                self.docker_gives_up_at = self.world.now + DOCKER_SECONDS

    def stop(self, hard: bool = False) -> None:
        """`systemctl stop`: SIGTERM and up to ten seconds; `hard` kills. The start of a restart is cancelled."""
        self.again = False
        if self.process is None:
            return
        self.ordered = True
        if hard:
            self.ends(137, "exit-code")
        else:
            self.stops_at = self.world.now + SOFT_STOP_SECONDS

    def restart(self) -> None:
        """`systemctl restart`, also what a restart of Docker does to the unit."""
        self.stop()
        self.again = True

    def ends(self, status: int, result: str) -> None:
        self.process, self.stops_at, self.status, self.result = None, None, status, result
        self.docker_gives_up_at = None
        if self.again:
            self.again = False
            self.start()

    def kill(self) -> None:
        """`docker kill` from outside."""
        self.ends(137, "exit-code")

    def shutting_down(self) -> bool:
        return False

    def power_off(self, seconds: float) -> None:
        self.on, self.watch, self.process, self.stops_at, self.again = False, None, None, None, False
        self.ordered = False
        self.back_at = self.world.now + seconds

    # The server's API

    def healthy(self) -> bool:
        process = self.process
        served = process is not None and process.group is not None and self.world.now >= process.ready_at
        return served and process is not None and not process.frozen

    def metrics(self) -> Optional[Metrics]:
        if not self.healthy():
            return None
        return Metrics(self.world.requests, self.world.tokens, self.world.cache)

    def begin_probe(self, deadline: float) -> None:
        self.probe = (self.world.now, deadline)

    def probe_result(self) -> Optional[bool]:
        assert self.probe is not None
        begun, deadline = self.probe
        if self.world.serves() and self.world.now >= self.world.prompt_until:
            return True if self.world.now > begun else None
        return False if self.world.now - begun >= deadline else None

    def step(self) -> None:
        if not self.on:
            if self.world.now >= self.back_at:
                self.on = True
                self.back_at = 0.0
                self.booted_at = self.world.now
                if self.enabled:
                    self.start()
                self.new_watch()
            return
        if self.stops_at is not None and self.world.now >= self.stops_at:
            self.ends(143, "success")
        if self.docker_gives_up_at is not None and self.world.now >= self.docker_gives_up_at:
            self.begun = not self.lacks_rails
            self.ends(0 if self.lacks_rails else 125, "exit-code")
        if self.crashes and self.process is not None and self.process.group is not None:
            self.crashes -= 1
            self.ends(1, "exit-code")
        self.tick_watch()

    def tick_watch(self) -> None:
        if self.watch is not None and not self.watch_broken:
            self.watch.tick()


class World:
    """Nodes, cables and time."""

    def __init__(self, size: int = 2, started: bool = True, **limits: Any) -> None:
        self.now = 1000.0
        self.requests = 0
        self.tokens = 0.0
        self.cache = 0.0
        self.prompt_until = 0.0
        self.cut: set[str] = set()
        self.groups = itertools.count()
        hosts = [f"spark{number}" for number in range(1, size + 1)]
        self.nodes: dict[str, Node] = {}
        for rank, host in enumerate(hosts):
            peers = tuple(other for other in hosts if other != host)
            self.nodes[host] = Node(self, host, Settings(host, rank, peers, hosts[0], **limits))
        self.head = self.nodes[hosts[0]]
        self.worker = self.nodes[hosts[-1]]
        if started:
            for node in self.nodes.values():
                node.start()

    def joined(self, a: str, b: str) -> bool:
        return a not in self.cut and b not in self.cut

    def serves(self) -> bool:
        """Whether a completion would come: every node has a live process of one group, and the cables are in."""
        processes = [node.process for node in self.nodes.values() if node.on and node.stops_at is None]
        groups = {process.group for process in processes if process is not None}
        whole = len(processes) == len(self.nodes) and None not in processes
        if not whole or None in groups or len(groups) != 1 or self.cut:
            return False
        return all(one is not None and not one.frozen and self.now >= one.ready_at for one in processes)

    def step(self) -> None:
        self.now += 1
        waiting = [
            node.process
            for node in self.nodes.values()
            if node.on and node.process is not None and not node.lacks_rails
        ]
        whole = len(waiting) == len(self.nodes) and not self.cut
        if whole and all(process.group is None and not process.frozen for process in waiting):
            group = next(self.groups)
            for process in waiting:
                process.group, process.ready_at = group, self.now + LOAD_SECONDS
        head = self.head.process if self.head.on else None
        for node in self.nodes.values():
            process = node.process
            if (
                process is None
                or process.group is not None
                or node is self.head
                or not self.joined("", node.host)
            ):
                continue
            process.wrong_head += (
                head is not None and head.group is not None and self.head.host not in self.cut
            )
            if process.wrong_head > POISONED_SECONDS:
                node.ends(1, "exit-code")
        if self.requests and self.serves():
            if self.now < self.prompt_until:
                self.cache += 0.001
            else:
                self.tokens += 20
        for node in self.nodes.values():
            node.step()

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.step()

    def until_served(self, limit: float = 900) -> float:
        """Seconds until a completion comes and every watch knows it; fails after `limit`."""
        begun = self.now
        while self.now - begun < limit:
            self.step()
            phases = {node.watch.report.phase for node in self.nodes.values() if node.watch}
            if self.serves() and phases == {"ready"}:
                return self.now - begun
        raise AssertionError(self.story())

    def generations(self) -> set[int]:
        return {node.watch.report.generation for node in self.nodes.values() if node.watch}

    def runs(self) -> list[int]:
        return [node.runs for node in self.nodes.values()]

    def story(self) -> str:
        """What every watch said, for the message of a failed test."""
        return "\n".join(f"{host}: {line}" for host, node in self.nodes.items() for line in node.log)


def phases(world: World) -> set[str]:
    """Of all watches that run."""
    return {node.watch.report.phase for node in world.nodes.values() if node.watch}
