"""The two machines and their connections: their facts, their cables, and whether ssh reaches them."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testlib.node import Node
from testlib.runs import Operator, Run, environment

INVENTORY = Path(__file__).resolve().parents[1] / "inventory"
HOSTS = ("spark1", "spark2")
RAILS = ("enp1s0f0np0", "enP2p1s0f0np0")
RDMA = ("rocep1s0f0", "roceP2p1s0f0")
PLANNED = {
    "spark1": ("198.51.100.1/26", "198.51.100.65/26"),
    "spark2": ("198.51.100.2/26", "198.51.100.66/26"),
}
NETPLAN = "/etc/netplan/40-cx7.yaml"
_RECAP = re.compile(r"^(spark\d) +: (.*)$", re.MULTILINE)

Facts = dict[str, Any]


class Patient(Operator):
    """An operator who measures with 300 messages: emulated machines need a minute for 5000."""

    @property
    def habits(self) -> dict[str, Any]:
        return {**super().habits, "__dgx_vllm_gate_iterations": 300}


def fabric(host: str) -> Facts:
    """What the module dgx_vllm_fabric reads on a machine, called as an operator would call it."""
    arguments = json.dumps({"interfaces": list(RAILS), "timeout": 0})
    done = subprocess.run(
        ["ansible", host, "-i", str(INVENTORY), "-m", "dgx_vllm.spark.dgx_vllm_fabric", "-a", arguments],
        check=True, capture_output=True, text=True, env={**environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    facts: Facts = json.loads(done.stdout.partition("=>")[2])["fabric"]
    return facts


def changed(run: Run) -> dict[str, int]:
    """How many tasks of a run changed something, by host."""
    return {host: int(re.findall(r"changed=(\d+)", counts)[0]) for host, counts in _RECAP.findall(run.output)}


def addresses(node: Node) -> dict[str, tuple[str, ...]]:
    """Interface -> its IPv4 addresses, management included."""
    links = json.loads(node.sh("ip -json -4 address show"))
    return {
        link["ifname"]: tuple(f"{info['local']}/{info['prefixlen']}" for info in link["addr_info"])
        for link in links
        if link["addr_info"]
    }


def address(host: str, rail: int) -> str:
    """A rail's planned address without its prefix length."""
    return PLANNED[host][rail].partition("/")[0]


def jumbo_ping(node: Node, source: str, target: str) -> str:
    """The output of ping for packets of 9000 bytes that may not be fragmented."""
    command = ["ping", "-M", "do", "-s", "8972", "-c", "3", "-i", "0.3", "-W", "5", "-I", source, target]
    return str(node.host.run(shlex.join(command)).stdout)


@dataclass
class Cables:
    """The cables at one machine, through QEMU's own control socket (QMP)."""

    control: Path

    def _tell(self, command: str, **arguments: Any) -> None:
        with socket.socket(socket.AF_UNIX) as line, line.makefile("rw", encoding="utf-8") as talk:
            line.settimeout(20)
            line.connect(str(self.control))
            talk.readline()
            for name, given in (("qmp_capabilities", {}), (command, arguments)):
                talk.write(json.dumps({"execute": name, "arguments": given}) + "\n")
                talk.flush()
                while "return" not in (answer := json.loads(talk.readline())):
                    assert "error" not in answer, answer

    @contextmanager
    def out(self, rail: int) -> Iterator[None]:
        """Unplug the cable of a rail, and plug it in again at the end."""
        self._tell("set_link", name=f"nic-rail{rail}", up=False)
        try:
            yield
        finally:
            self._tell("set_link", name=f"nic-rail{rail}", up=True)


def greets(host: str, port: int, limit: float = 8) -> bool:
    """Whether ssh's greeting arrives: QEMU accepts the connection even if the machine does not answer."""
    try:
        with socket.create_connection((host, port), timeout=limit) as line:
            line.settimeout(limit)
            return line.recv(4) == b"SSH-"
    except OSError:
        return False


@contextmanager
def listening(host: str, port: int) -> Iterator[list[float]]:
    """Ask for ssh's greeting every second; gives the moments (seconds from the start) at which none arrived."""
    dark: list[float] = []
    over = threading.Event()

    def ask() -> None:
        begun = time.monotonic()
        while not over.wait(1):
            asked = time.monotonic() - begun
            if not greets(host, port):
                dark.append(asked)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield dark
    finally:
        over.set()
        thread.join(20)
