"""The gate between two machines: a real measurement, and the message for each fault that it exists to find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machines import HOSTS, NETPLAN, RAILS, Cables, address, changed, jumbo_ping

from testlib.node import Node
from testlib.runs import Operator

GATE = "playbooks/fabric.yml"
LOW = {"rail_gbits": 0.01, "degraded_gbits": 0.005, "port_gbits": 0.02}


def findings(operator: Operator, check: str) -> list[dict[str, Any]]:
    """The findings of one check in the report that the gate wrote."""
    content = json.loads((operator.folder / "fabric.json").read_text(encoding="utf-8"))
    rows = content["findings"] if isinstance(content, dict) else content
    return [row for row in rows if row["check"] == check]


def report(operator: Operator) -> str:
    return str(operator.folder / "fabric.json")


def test_gate_measures_real_rdma_on_both_rails(operator: Operator) -> None:
    run = operator.succeed(GATE, fabric_json=report(operator))
    assert changed(run) == dict.fromkeys(HOSTS, 0)
    rows = findings(operator, "bandwidth")
    assert [row["where"] for row in rows] == ["spark1 - spark2 rail 0", "spark1 - spark2 rail 1"]
    assert [row["status"] for row in rows] == ["pass", "pass"]
    assert all(row["found"].endswith(" Gb/s") for row in rows)
    print("ib_write_bw over soft-RoCE in emulated machines:", *(row["found"] for row in rows), sep="\n  ")
    assert [row["status"] for row in findings(operator, "jumbo_ping")] == ["pass", "pass"]


def test_second_run_is_compared_with_the_first(operator: Operator) -> None:
    """The recorded results, multiplied by ten: no emulated rail reaches them."""
    history = Path(operator.habits["dgx_vllm_report_dir"]) / "fabric-history/pair.json"
    runs = json.loads(history.read_text(encoding="utf-8"))
    kept = runs[-1]["figures"]
    assert set(kept) == {f"spark2 rail {rail} - spark1 rail {rail}" for rail in (0, 1)}
    runs[-1]["figures"] = {name: 10 * value for name, value in kept.items()}
    history.write_text(json.dumps(runs), encoding="utf-8")
    operator.succeed(GATE, fabric_json=report(operator))
    rows = findings(operator, "trend")
    assert [row["status"] for row in rows] == ["warn", "warn"]
    previous = {row["found"].partition(" -> ")[0] for row in rows}
    assert previous == {f"{name}: {10 * value:.1f}" for name, value in kept.items()}
    assert all(f"since {runs[-1]['time']}" in row["reason"] for row in rows)
    assert len(json.loads(history.read_text(encoding="utf-8"))) == len(runs) + 1


def test_gate_fails_at_a_speed_it_cannot_reach(operator: Operator) -> None:
    run = operator.fail(GATE, fabric_thresholds={**LOW, "rail_gbits": 50}, fabric_json=report(operator))
    assert "spark1 - spark2 rail 0" in run.output
    assert "below 50 Gb/s although MTU, PCIe width and link are right" in run.message
    assert "run it again on idle machines" in run.message


def test_gate_reports_an_mtu_of_1500_at_one_end(operator: Operator, nodes: dict[str, Node]) -> None:
    nodes["spark2"].sh(f"ip link set dev {RAILS[0]} mtu 1500")
    run = operator.fail(GATE)
    assert f"spark2 {RAILS[0]} has MTU 1500" in run.message
    assert "packets of 9000 bytes do not pass" in run.message
    assert f"{RAILS[0]} MTU 1500" in run.message
    assert "run site.yml with the tag fabric" in run.message


def test_stage_corrects_that_mtu(operator: Operator, nodes: dict[str, Node]) -> None:
    run = operator.succeed("site.yml", "--tags", "fabric")
    assert changed(run)["spark1"] == 0 < changed(run)["spark2"]
    assert nodes["spark2"].text(f"/sys/class/net/{RAILS[0]}/mtu") == "9000"
    output = jumbo_ping(nodes["spark1"], address("spark1", 0), address("spark2", 0))
    assert " 0% packet loss" in output, output


def test_gate_reports_a_cable_that_is_unplugged(
    operator: Operator, nodes: dict[str, Node], cables: Cables
) -> None:
    with cables.out(rail=1):
        nodes["spark2"].wait_for_text(f"/sys/class/net/{RAILS[1]}/carrier", "0", 20)
        run = operator.fail(GATE)
    nodes["spark2"].wait_for_text(f"/sys/class/net/{RAILS[1]}/carrier", "1", 20)
    assert f"spark2 {RAILS[1]} has no link" in run.message
    assert "plug the cable in at both ends" in run.message
    assert nodes["spark2"].host.file(NETPLAN).exists
