"""Who measures what with whom, which replicas at all, and what is kept of it."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.netplan import FilterModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import Options, collect_rails
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import failed
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import sentence, table
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import history as fabric_history
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import tests as fabric_gate
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.diagnosis import diagnose, of_replica
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.steps import SHOWN
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan

from helpers.fleets import fleet
from helpers.pair import Pair

FILTERS = FilterModule().filters()
NAMES = ("enp1s0f0np0", "enP2p1s0f0np0")


def facts(planned: dict[str, Any]) -> dict[str, Any]:
    rails = [{"rail": number, "interface": name} for number, name in enumerate(NAMES)]
    devices = [{"interface": name, "rdma": f"roce-{name}", "carrier": True} for name in NAMES]
    return {host: {"rails": rails, "devices": devices} for host in planned["hosts"]}


@pytest.mark.parametrize(("size", "rounds"), [(2, 1), (4, 3), (8, 7)])
def test_every_link_is_pinged_both_ways_and_measured_once(size: int, rounds: int) -> None:
    planned = plan(fleet([size]))
    found = fabric_gate.gate_plan(planned, facts(planned), ["r0"])
    links = size * (size - 1) // 2 * 2
    tests = found["tests"]
    assert found["rounds"] == rounds
    assert sum(len(one["pings"]) for one in tests.values()) == 2 * links
    written = [test for one in tests.values() for part in one["write"] for test in part]
    assert len(written) == sum(len(part) for one in tests.values() for part in one["serve"]) == links
    ports = Counter((test["to"], test["port"]) for test in written)
    assert set(ports.values()) == {1}
    for number in range(rounds):
        served = {
            (host, one["port"], one["to"]) for host, test in tests.items() for one in test["serve"][number]
        }
        clients = [one for test in tests.values() for one in test["write"][number]]
        assert served == {(one["to"], one["port"], one["from"]) for one in clients}
        ends = [
            end
            for test in tests.values()
            for end in {(one["from"], one["to"]) for one in test["write"][number]}
        ]
        assert max(Counter(host for end in ends for host in end).values()) == 1


def test_both_ends_have_their_own_names_and_addresses() -> None:
    planned = plan(fleet([2]))
    (ping, _) = fabric_gate.gate_plan(planned, facts(planned), ["r0"])["tests"]["r0n1"]["pings"]
    assert (ping["interface"], ping["address"], ping["peer"]) == ("enp1s0f0np0", "10.0.0.2", "10.0.0.1")


def test_a_missing_rail_and_a_missing_node_are_left_to_the_diagnosis() -> None:
    planned = plan(fleet([2]))
    known = facts(planned)
    known["r0n0"] = {**known["r0n0"], "rails": known["r0n0"]["rails"][:1]}
    tests = fabric_gate.gate_plan(planned, known, ["r0"])["tests"]
    assert [len(tests[host]["pings"]) for host in ("r0n0", "r0n1")] == [1, 2]
    assert [len(part) for part in tests["r0n0"]["serve"]] == [1]
    del known["r0n1"]
    assert fabric_gate.gate_plan(planned, known, ["r0"])["tests"]["r0n1"]["pings"] == []


def test_only_pings_next_to_a_server_and_without_rdma() -> None:
    planned = plan(fleet([2, 2]))
    found = fabric_gate.gate_plan(planned, facts(planned), ["r0", "r1"], {"r0": ["r0n0"]})
    assert (found["tests"]["r0n0"]["serve"], found["gathers"]) == ([[]], ["r1"])
    assert [len(part) for part in found["tests"]["r1n0"]["serve"]] == [2]
    tcp = fabric_gate.gate_plan(planned, facts(planned), ["r0", "r1"], thresholds={"r1": {"rdma": False}})
    assert [len(tcp["tests"][host]["serve"][0]) for host in ("r0n0", "r1n0")] == [2, 0]
    assert tcp["gathers"] == ["r0", "r1"]


def test_nothing_is_measured_where_large_packets_do_not_pass() -> None:
    planned = plan(fleet([4, 2]))
    gate = fabric_gate.gate_plan(planned, facts(planned), ["r0", "r1"])
    pings = [{**ping, "ok": True} for test in gate["tests"].values() for ping in test["pings"]]
    everybody = list(gate["plan"]["hosts"])
    assert fabric_gate.passable(gate, pings, everybody) == gate
    assert fabric_gate.passable(gate, pings, everybody[:-1])["gathers"] == ["r0"]
    for ping in pings:
        ping["ok"] = "r0n3" not in (ping["from"], ping["to"]) or ping["rail"] == 1
    found = fabric_gate.passable(gate, pings, everybody)
    assert found["gathers"] == ["r1"]
    for kind in ("serve", "write"):
        left = [one for test in found["tests"].values() for part in test[kind] for one in part]
        assert len(left) == (6 + 1) * 2 - 3
        assert not [one for one in left if "r0n3" in (one["from"], one["to"]) and one["rail"] == 0]


def test_a_replica_with_a_rail_out_gathers_nothing() -> None:
    """NCCL on the healthy nodes would wait for the one that does not start."""
    planned = plan(fleet([2]))
    known = facts(planned)
    dead = [{**one, "carrier": number == 1} for number, one in enumerate(known["r0n1"]["devices"])]
    known["r0n1"] = {**known["r0n1"], "devices": dead}
    assert fabric_gate.gate_plan(planned, known, ["r0"])["gathers"] == []


def test_which_replicas_are_measured() -> None:
    planned = plan(fleet([2, 2, 1]))
    everybody = list(planned["hosts"])
    names = list(planned["replicas"])
    r0, r1 = ["r0n0", "r0n1"], ["r1n0", "r1n1"]
    assert fabric_gate.to_measure(planned, everybody, [], []) == names[:2]
    assert fabric_gate.to_measure(planned, everybody, r0, []) == ["r1"]
    assert fabric_gate.to_measure(planned, everybody, ["r0n0"], []) == ["r0", "r1"]
    assert fabric_gate.to_measure(planned, everybody, r0 + r1, ["r1n1"]) == ["r1"]
    assert fabric_gate.to_measure(planned, everybody, r0 + r1, [], True) == ["r0", "r1"]
    assert fabric_gate.to_measure(planned, r0[:1], [], [], True) == []
    assert fabric_gate.busy(planned, ["r0n1"]) == {"r0": ["r0n1"]}
    assert fabric_gate.busy(planned, ["r0n1", "r1n0"], ["r0"]) == {"r1": ["r1n0"]}


def test_next_to_a_server_the_findings_say_why_there_is_no_bandwidth(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    known = {host: pair.read(host) for host in pair.machines}
    measured = {"pings": pair.pings, "bandwidth": [], "busy": {"chat": ["spark1"]}}
    found = [one for one in diagnose(pair.plan, known, measured) if one.status != "pass"]
    assert [(one.check, one.status, one.found) for one in found] == [("bandwidth", "warn", "not measured")]
    assert "the server runs on spark1" in found[0].reason


def test_bandwidth_that_fell_is_named(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    known = {host: pair.read(host) for host in pair.machines}
    measured: dict[str, Any] = {"pings": pair.pings, "bandwidth": pair.bandwidth, "nccl": {"chat": pair.nccl}}
    history = fabric_history.runs_to_keep(pair.plan, measured, "2026-11-25T20:00:00Z")
    assert history["chat"][0]["figures"]["all-gather"] == 22.1
    fast = {name: value * 1.2 for name, value in history["chat"][0]["figures"].items()}
    measured["history"] = {"chat": [{"time": "2026-11-24T20:00:00Z", "figures": fast}]}
    trend = [one for one in diagnose(pair.plan, known, measured) if one.check == "trend"]
    assert len(trend) == 3
    assert trend[0].reason == "it fell by 17 % since 2026-11-24T20:00:00Z"
    assert {one.status for one in trend} == {"warn"}


def test_the_history_stays_short() -> None:
    runs: list[dict[str, Any]] = []
    for number in range(30):
        runs = fabric_history.extended(runs, str(number), {"x": 1.0})
    assert [run["time"] for run in runs] == [str(number) for number in range(10, 30)]
    assert fabric_history.extended(runs, "31", {}) == runs


def test_previous_runs_from_files() -> None:
    def file(text: str) -> dict[str, str]:
        return {"content": base64.b64encode(text.encode()).decode()}

    run = {"time": "t", "figures": {}}
    files = [file(json.dumps([run])), file("{"), file("{}"), {"msg": "no such file"}]
    assert fabric_history.previous_runs(files, ["a", "b", "c", "d"]) == {"a": [run]}
    assert fabric_history.previous_runs([], ["a"]) == {}


@pytest.mark.parametrize(
    "damaged",
    [
        1,
        None,
        "x",
        {},
        {"time": 1, "figures": {}},
        {"time": "t", "figures": {"a": "b"}},
        {"time": "t", "figures": {"a": float("nan")}},
    ],
)
def test_entries_of_a_history_that_are_no_runs_are_left_out(damaged: Any) -> None:
    good = {"time": "t", "figures": {"all-gather": 20.5}}
    content = base64.b64encode(json.dumps([damaged, good]).encode()).decode()
    runs = fabric_history.previous_runs([{"content": content}], ["a"])
    assert runs == {"a": [good]}
    assert fabric_history.slower("a", runs["a"], {"all-gather": 20.0}) == []


def test_a_history_that_is_nested_too_deep_is_no_history() -> None:
    content = base64.b64encode(b"[" * 100_000).decode()
    assert fabric_history.previous_runs([{"content": content}], ["a"]) == {}


def test_the_table_shows_what_was_measured(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    text = table(pair.findings(), shown=SHOWN)
    assert "spark1 - spark2 rail 0 +1  bandwidth       PASS    95.0 Gb/s" in text
    assert "jumbo_ping" in text
    assert "22.1 GB/s over IB" in text


def test_sentences_of_one_replica() -> None:
    planned = plan(fleet([2, 2]))
    findings = [failed(where, "mtu", "f", "r", "m") for where in ("r0n1", "r1n0 - r1n1 rail 0", "r1")]
    assert [sentence(finding) for finding in of_replica(findings, planned, "r1")] == [
        "r1n0 - r1n1 rail 0: mtu: f. r. m.",
        "r1: mtu: f. r. m.",
    ]


def test_a_finding_about_a_place_that_nobody_has_is_not_lost() -> None:
    planned = plan(fleet([2, 2]))
    lost = [failed("chat large", "nccl", "3 GB/s over Socket", "r", "m")]
    assert all(of_replica(lost, planned, name) == lost for name in ("r0", "r1"))


def test_reading_waits_for_links_and_addresses(tmp_path: Path) -> None:
    rail = {"rails": [{"interface": "a", "link": True}], "addresses": {}}
    dead = {"rails": [{"interface": "a", "link": False}], "addresses": {"a": ["198.51.100.1/26"]}}
    answers = [dead, rail, {**rail, "addresses": {"a": ["198.51.100.1/26"]}}]
    waits: list[float] = []

    def reader(_: Any) -> dict[str, Any]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    found = collect_rails(Options(rails=1), ["198.51.100.1/26"], 20, reader, waits.append)
    assert found["addresses"] == {"a": ["198.51.100.1/26"]}
    assert len(waits) == 2
    answers[:] = [rail]
    assert collect_rails(Options(rails=2), [], 3, reader, waits.append) == rail
    assert len(waits) == 5


def test_the_commands_that_are_missing(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    machine, row = pair.machines["spark1"], pair.plan["hosts"]["spark1"]
    assert FILTERS["netplan_commands"](machine.read(), row, 9000) == []
    machine.addresses["enP2p1s0f0np0"] = []
    machine.write("sys/class/net/enp1s0f0np0/mtu", "1500")
    assert FILTERS["netplan_commands"](machine.read(), row, 9000) == [
        "ip link set dev enp1s0f0np0 up mtu 9000",
        "ip address add 198.51.100.65/26 dev enP2p1s0f0np0",
    ]
    pair.change("spark1", "enp1s0f0np0", "carrier", 0)
    assert FILTERS["netplan_commands"](machine.read(), row, 9000) == [
        "ip address add 198.51.100.65/26 dev enP2p1s0f0np0",
    ]
