"""A half, a cable or a function that is out: exactly that one is named, and the rest stays as planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.fabric import FilterModule

from helpers.machine import SPARK
from helpers.pair import LOST, Pair

FILTERS = FilterModule().filters()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def unmeasured(pair: Pair, *rails: int) -> None:
    """Large packets do not pass there, so the gate measures no bandwidth."""
    for rail in rails:
        pair.measure(rail, LOST, None)
    pair.bandwidth = [one for one in pair.bandwidth if one["rail"] not in rails]
    pair.nccl = {}


@pytest.mark.parametrize(("ports", "rail"), [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3)])
def test_a_half_that_is_out_is_named_and_the_others_are_right(tmp_path: Path, ports: int, rail: int) -> None:
    pair = Pair(tmp_path, ports)
    name = SPARK[rail // 2, rail % 2][1]
    pair.change("spark2", name, "carrier", 0)
    pair.machines["spark2"].addresses[name] = []
    unmeasured(pair, rail)
    bad, link = pair.bad(), f"spark1 - spark2 rail {rail}"
    assert set(bad) == {("spark2", "half_port"), (link, "jumbo_ping"), (link, "bandwidth")}
    half = bad["spark2", "half_port"]
    assert half.found.startswith(f"rail {rail} of {2 * ports} out;")
    assert "one half of a cabled port does not take part" in half.reason
    assert f"{name}, the other PCIe function of port {rail // 2}, has no link" in half.reason
    assert bad[link, "jumbo_ping"].reason == f"spark2 {name} has no link"
    assert bad[link, "bandwidth"].reason == "it is only measured where large packets pass"


@pytest.mark.parametrize("half", [0, 1])
def test_a_half_that_is_out_stays_in_netplan(pair: Pair, half: int) -> None:
    """Its file is as it was, and nothing is applied again and again for it."""
    row = pair.plan["hosts"]["spark2"]
    planned = [rail["address"] for rail in row["rails"]]
    before = FILTERS["fabric_netplan"](pair.read("spark2")["rails"], planned)
    pair.change("spark2", SPARK[0, half][1], "carrier", 0)
    pair.machines["spark2"].addresses[SPARK[0, half][1]] = []
    found = pair.read("spark2")
    assert [rail["link"] for rail in found["rails"]] == [half == 1, half == 0]
    assert FILTERS["fabric_netplan"](found["rails"], planned) == before
    assert FILTERS["fabric_address_commands"](found, row) == []


@pytest.mark.parametrize("half", [0, 1])
def test_a_half_that_the_machine_does_not_show(pair: Pair, half: int) -> None:
    root = pair.machines["spark2"].root
    for port in (0, 1):
        for path in (f"net/{SPARK[port, half][1]}", f"infiniband/{SPARK[port, half][2]}"):
            (root / "sys/class" / path).unlink()
    unmeasured(pair, half)
    bad, link = pair.bad(), f"spark1 - spark2 rail {half}"
    assert set(bad) == {("spark2", "half_port"), (link, "jumbo_ping"), (link, "bandwidth")}
    assert (
        f"{SPARK[0, 1 - half][1]} (port 0) has no second PCIe function" in bad["spark2", "half_port"].reason
    )
    assert bad[link, "jumbo_ping"].reason == f"spark2 has no rail {half} now"


@pytest.mark.parametrize("port", [0, 1])
def test_one_cable_of_two_is_out(tmp_path: Path, port: int) -> None:
    pair = Pair(tmp_path, ports=2)
    for half in (0, 1):
        pair.change("spark2", SPARK[port, half][1], "carrier", 0)
    unmeasured(pair, 2 * port, 2 * port + 1)
    bad = pair.bad()
    assert {check for where, check in bad if where == "spark2"} == {"rails"}
    assert bad["spark2", "rails"].found.startswith("2 half-ports with a link")
    assert bad["spark2", "rails"].remedy == "change the cables, or write `dgx_vllm_fabric_ports: 1`"
    assert {where for where, _ in bad} == {
        "spark2", f"spark1 - spark2 rail {2 * port}", f"spark1 - spark2 rail {2 * port + 1}",
    }  # fmt: skip


def test_a_ring_is_told_of_its_cables(tmp_path: Path) -> None:
    """`dgx_vllm_fabric_ports` means nothing to a ring."""
    pair = Pair(tmp_path, ports=2)
    for half in (0, 1):
        pair.change("spark2", SPARK[1, half][1], "carrier", 0)
    pair.plan["hosts"]["spark2"]["kind"] = "ring"
    remedy = pair.bad()["spark2", "rails"].remedy
    assert remedy.startswith("plug both cables in: a ring takes both ports of every node")
