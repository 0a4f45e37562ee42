"""Pings and ib_write_bw with tools that a table answers for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import probe as fabric_probe
from ansible_collections.dgx_vllm.spark.plugins.modules import dgx_vllm_fabric_probe as module

from helpers.machine import Machine

GOOD = "3 packets transmitted, 3 received, 0% packet loss\nrtt min/avg/max/mdev = 0.2/0.3/0.4/0.1 ms\n"
LOST = "3 packets transmitted, 0 received, 100% packet loss\n"
BANDWIDTH = (
    " #bytes #iterations BW peak[Gb/sec] BW average[Gb/sec] MsgRate[Mpps]\n 65536 5000 97.3 97.2 0.18\n"
)
REFUSED = "Couldn't connect to 198.51.100.1:18515\n"
TEST: dict[str, Any] = {
    "from": "spark2", "to": "spark1", "rail": 0, "to_rail": 0, "interface": "enp1s0f0np0", "rdma": "rocep1s0f0",
    "rdma_port": 1, "address": "198.51.100.2", "peer": "198.51.100.1", "port": 18515,
}  # fmt: skip


class Tools:
    """Answers in turn for each command; the last answer stays."""

    def __init__(self, *answers: str, large: str = GOOD) -> None:
        self.answers, self.large = list(answers), large
        self.seen: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> Completed:
        self.seen.append(list(argv))
        if argv[0] == "ping":
            return Completed(0, self.large if "-s" in argv else GOOD, "")
        if argv[0] == "ip":
            row = {"dst": "198.51.100.1", "dev": "enp1s0f0np0", "lladdr": "02:00:00:00:00:0A"}
            return Completed(0, json.dumps([row]), "")
        return Completed(0, self.answers.pop(0) if len(self.answers) > 1 else self.answers[0], "")


def test_a_large_ping_and_the_neighbour() -> None:
    tools = Tools()
    (found,) = fabric_probe.ping_all([TEST], tools)
    assert (found["ok"], found["plain_ok"], found["peer_mac"]) == (True, True, "02:00:00:00:00:0a")
    assert (found["from"], found["to"], found["rail"], found["to_rail"]) == ("spark2", "spark1", 0, 0)
    ping = tools.seen[0]
    assert ping[-5:] == ["-M", "do", "-s", "8972", "198.51.100.1"]
    assert ping[ping.index("-I") + 1] == "enp1s0f0np0"


def test_a_small_ping_tells_where_a_large_one_fails() -> None:
    (found,) = fabric_probe.ping_all([TEST], Tools(large=LOST))
    assert (found["ok"], found["plain_ok"]) == (False, True)


def test_a_missing_ping_is_named() -> None:
    def nothing(argv: Sequence[str]) -> Completed:
        return Completed(MISSING, "", f"{argv[0]} is not installed")

    (found,) = fabric_probe.ping_all([TEST], nothing)
    assert (found["error"], found["peer_mac"]) == ("ping is not installed", "")


def measured(machine: Machine, tools: Tools, test: dict[str, Any] = TEST) -> dict[str, Any]:
    waits: list[float] = []
    sleep: Callable[[float], None] = waits.append
    (found,) = fabric_probe.write_all([test], machine.root, tools, 65536, 5000, sleep)
    return {**found, "waits": len(waits)}


def test_bandwidth_uses_the_gid_of_the_moment(spark: Machine) -> None:
    spark.port(0, ("198.51.100.2/26", "198.51.100.66/26"))
    tools = Tools(BANDWIDTH)
    assert measured(spark, tools)["gbits"] == 97.2
    (argv,) = tools.seen
    assert (argv[argv.index("-x") + 1], argv[argv.index("-p") + 1], argv[-1]) == (
        "3",
        "18515",
        "198.51.100.1",
    )


def test_a_server_that_does_not_listen_yet_is_asked_again(spark: Machine) -> None:
    spark.port(0, ("198.51.100.2/26", "198.51.100.66/26"))
    found = measured(spark, Tools(REFUSED, REFUSED, BANDWIDTH))
    assert (found["gbits"], found["waits"]) == (97.2, 2)


def test_a_server_that_never_listens(spark: Machine) -> None:
    spark.port(0, ("198.51.100.2/26", "198.51.100.66/26"))
    tools = Tools(REFUSED)
    assert measured(spark, tools)["error"] == "the other end took no connection"
    assert len(tools.seen) == fabric_probe.ATTEMPTS


def test_what_cannot_be_measured(spark: Machine) -> None:
    assert measured(spark, Tools())["error"] == "rocep1s0f0 has no RoCE v2 GID for 198.51.100.2"
    assert measured(spark, Tools(), {**TEST, "rdma": ""})["error"] == "enp1s0f0np0 has no RDMA device"


def test_servers_end_by_themselves(spark: Machine, tmp_path: Path) -> None:
    spark.port(0, ("198.51.100.2/26", "198.51.100.66/26"))
    started: list[list[str]] = []
    wrong = fabric_probe.serve(
        [TEST, {**TEST, "rdma": ""}], spark.root, lambda argv: started.append(list(argv)), 65536, 5000, 90
    )
    assert [argv[:3] for argv in started] == [["timeout", "90", "ib_write_bw"]]
    assert [(one["from"], one["rail"], one["gbits"], one["error"]) for one in wrong] == [
        ("spark2", 0, None, "enp1s0f0np0 has no RDMA device")
    ]


def test_documentation_names_the_options() -> None:
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert {name: option["default"] for name, option in options.items()} == {
        "pings": [], "serve": [], "write": [], "mtu": 9000, "size": 65536, "iterations": 5000, "timeout": 60,
    }  # fmt: skip
