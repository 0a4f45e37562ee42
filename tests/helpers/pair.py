"""Two machines on one cable (or two), what discovery sees of them, and what was measured between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.measure import parse_ping
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.diagnosis import diagnose
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan

from helpers.machine import SPARK, Machine

GOOD = parse_ping(
    "3 packets transmitted, 3 received, 0% packet loss\nrtt min/avg/max/mdev = 0.2/0.3/0.4/0.1 ms"
)
LOST = parse_ping("3 packets transmitted, 0 received, 100% packet loss")
NCCL = {"transport": "IB", "devices": ["rocep1s0f0", "roceP2p1s0f0"], "busbw_gbytes": 22.1}


class Pair:
    """Two machines on one cable (or two), what discovery sees of them, and what was measured between them.

    A single cable is in port 1 of the hosts in `elsewhere`, in port 0 of the others.
    """

    def __init__(self, tmp_path: Path, ports: int = 1, elsewhere: tuple[str, ...] = ()) -> None:
        fleet = {
            host: {
                "ansible_host": f"192.0.2.{number}",
                "dgx_vllm_replica": "chat",
                "dgx_vllm_tensor_parallel_size": 2,
                "dgx_vllm_fabric_prefix": "198.51.100.0/24",
                "dgx_vllm_fabric_ports": ports,
            }
            for number, host in enumerate(("spark1", "spark2"), 1)
        }
        self.plan = plan(fleet)
        assert self.plan["mistakes"] == []
        self.machines = {host: Machine(tmp_path / host) for host in fleet}
        for host, machine in self.machines.items():
            machine.write("dev/infiniband/uverbs0", "")
            addresses = [rail["address"] for rail in self.plan["hosts"][host]["rails"]]
            for port in (0, 1):
                for half in (0, 1):
                    rail = (2 * port + half) ^ (2 if host in elsewhere else 0)
                    self.half(host, port, half, address=addresses[rail] if rail < 2 * ports else "")
                    if rail >= 2 * ports:
                        self.change(host, SPARK[port, half][1], "carrier", 0)
        self.pings: list[dict[str, Any]] = []
        self.bandwidth: list[dict[str, Any]] = []
        for rail in range(2 * ports):
            self.measure(rail, GOOD, 95.0)
        self.nccl: dict[str, Any] = dict(NCCL)
        self.thresholds: dict[str, Any] = {}

    def read(self, host: str) -> dict[str, Any]:
        return self.machines[host].read(rails=len(self.plan["hosts"][host]["rails"]))

    def half(self, host: str, port: int, half: int, address: str) -> None:
        mac = f"02:00:00:0{1 if host == 'spark1' else 2}:0{port}:0{half}"
        name = self.machines[host].half(port, half, address=address)
        self.change(host, name, "address", mac)

    def change(self, host: str, interface: str, attribute: str, value: Any) -> None:
        (self.machines[host].root / "sys/class/net" / interface / attribute).write_text(f"{value}\n")

    def measure(
        self, rail: int, ping: dict[str, Any], gbits: float | None, error: str = "", **more: Any
    ) -> None:
        ends = [("spark1", "spark2"), ("spark2", "spark1")]
        self.pings = [one for one in self.pings if one["rail"] != rail]
        self.pings += [{"from": a, "to": b, "rail": rail, **ping, **more} for a, b in ends]
        self.bandwidth = [one for one in self.bandwidth if one["rail"] != rail]
        self.bandwidth += [{"from": "spark1", "to": "spark2", "rail": rail, "gbits": gbits, "error": error}]

    def findings(self) -> list[Finding]:
        facts = {host: self.read(host) for host in self.machines}
        measured = {"pings": self.pings, "bandwidth": self.bandwidth, "nccl": {"chat": self.nccl}}
        return diagnose(self.plan, facts, measured, {"chat": self.thresholds})

    def bad(self) -> dict[tuple[str, str], Finding]:
        return {(one.where, one.check): one for one in self.findings() if one.status != "pass"}
