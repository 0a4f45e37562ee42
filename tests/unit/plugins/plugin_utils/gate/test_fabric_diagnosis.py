"""Each cause gets its own sentence, and what only follows from a cause points at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.filter import gate as gate_filter
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.measure import (
    parse_write_bw,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import table
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.diagnosis import (
    diagnose,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import THRESHOLDS, limits_from
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nccl import parse_nccl
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.drift import COMMON

from helpers.pair import GOOD, LOST, NCCL, Pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_good_pair_passes_everything(pair: Pair) -> None:
    found = pair.findings()
    assert {one.status for one in found} == {"pass"}
    assert {one.check for one in found} == {
        "rails", "speed", "mtu", "addresses", "pcie_width", "rdma", "gid", "firmware", "mixed_ports",
        "jumbo_ping", "bandwidth", "port_bandwidth", "nccl",
    }  # fmt: skip


def test_a_good_pair_on_two_cables(tmp_path: Path) -> None:
    pair = Pair(tmp_path, ports=2)
    pair.nccl = {}
    assert pair.bad() == {}
    assert {one.where for one in pair.findings() if one.check == "port_bandwidth"} == {
        "spark1 - spark2 port 0",
        "spark1 - spark2 port 1",
    }


def test_nccl_with_one_interface_of_a_port(pair: Pair) -> None:
    pair.nccl = {"transport": "IB", "devices": ["rocep1s0f0"], "busbw_gbytes": 11.9}
    ((key, one),) = pair.bad().items()
    assert key == ("chat", "nccl")
    assert one.reason == "NCCL uses 1 of 2 interfaces, so part of the bandwidth is missing"


def test_fallback_to_tcp(pair: Pair) -> None:
    pair.nccl = parse_nccl("NET/Socket : Using [0]enp1s0f0np0:198.51.100.1<0>\n# Avg bus bandwidth : 2.9")
    ((_, one),) = pair.bad().items()
    assert one.reason.startswith("TCP fallback")
    assert "/dev/infiniband" in one.remedy


def test_small_mtu_on_one_end(pair: Pair) -> None:
    pair.change("spark2", "enP2p1s0f0np0", "mtu", 1500)
    pair.measure(1, LOST, 71.0)
    bad = pair.bad()
    assert set(bad) == {
        ("spark2", "mtu"), ("spark1 - spark2 rail 1", "jumbo_ping"), ("spark1 - spark2 rail 1", "bandwidth"),
        ("spark1 - spark2 port 0", "port_bandwidth"),
    }  # fmt: skip
    assert bad["spark2", "mtu"].found == "enP2p1s0f0np0 MTU 1500"
    for check in ("jumbo_ping", "bandwidth"):
        assert "MTU: spark2 enP2p1s0f0np0 has MTU 1500" in bad["spark1 - spark2 rail 1", check].reason


def test_small_mtu_in_the_switch(pair: Pair) -> None:
    pair.measure(0, LOST, 60.0, plain_ok=True)
    one = pair.bad()["spark1 - spark2 rail 0", "jumbo_ping"]
    assert one.reason.startswith("MTU on the path")
    assert "set the switch's MTU to 9216" in one.remedy


def test_degraded_pcie_link(pair: Pair) -> None:
    function = (pair.machines["spark1"].root / "sys/class/infiniband/roceP2p1s0f0/device").resolve()
    (function / "current_link_width").write_text("2\n")
    pair.measure(1, GOOD, 49.0)
    bad = pair.bad()
    assert (
        "a degraded link: this PCIe function runs at x2 instead of x4" in bad["spark1", "pcie_width"].reason
    )
    assert (
        bad["spark1 - spark2 rail 1", "bandwidth"].reason
        == "degraded link: spark1 enP2p1s0f0np0 runs at PCIe x2"
    )


def test_degraded_hardware(pair: Pair) -> None:
    pair.measure(0, GOOD, 13.2)
    assert "about 13 Gb/s on degraded hardware" in pair.bad()["spark1 - spark2 rail 0", "bandwidth"].reason


def test_a_rail_that_is_just_slow(pair: Pair) -> None:
    pair.measure(0, GOOD, 80.0)
    assert "idle machines" in pair.bad()["spark1 - spark2 rail 0", "bandwidth"].remedy


def test_a_slow_link_speed(pair: Pair) -> None:
    pair.change("spark1", "enp1s0f0np0", "speed", 25000)
    assert pair.bad()["spark1", "speed"].found == "enp1s0f0np0 25000 Mb/s"


def test_swapped_cables(tmp_path: Path) -> None:
    pair = Pair(tmp_path, ports=2)
    pair.nccl = {}
    for rail in range(4):
        mac = f"02:00:00:02:0{1 - rail // 2}:0{rail % 2}"
        pair.measure(rail, LOST, None, "the other end took no connection")
        pair.pings[-2]["peer_mac"] = mac.upper()
    bad = pair.bad()
    one = bad["spark1 - spark2 rail 0", "swapped_cables"]
    assert one.found == "rail 0 of spark1 arrives at rail 2 of spark2"
    assert one.remedy == "exchange the two cables at spark2"
    assert bad["spark1 - spark2 rail 3", "jumbo_ping"].reason == "no answer, because the cables are swapped"


def test_cables_that_are_right_are_not_called_swapped(pair: Pair) -> None:
    pair.measure(0, LOST, 95.0)
    pair.pings[-2]["peer_mac"] = "02:00:00:02:00:00"
    assert "swapped_cables" not in {check for _, check in pair.bad()}


def test_mixed_ports(tmp_path: Path) -> None:
    pair = Pair(tmp_path, elsewhere=("spark2",))
    ((key, one),) = pair.bad().items()
    assert (key, one.status) == (("chat", "mixed_ports"), "warn")
    assert one.found == "port 0: spark1; port 1: spark2"


def test_firmware_drift_is_a_warning_as_in_preflight(pair: Pair) -> None:
    for name in ("rocep1s0f0", "roceP2p1s0f0"):
        (pair.machines["spark2"].root / "sys/class/infiniband" / name / "fw_ver").write_text("28.43.1000\n")
    one = pair.bad()["chat", "firmware"]
    assert one.status == COMMON["same_firmware"].status == "warn"
    assert one.found.startswith(
        "28.45.4028 on spark1 enp1s0f0np0, spark1 enP2p1s0f0np0; 28.43.1000 on spark2"
    )


def test_no_gid_for_the_address(pair: Pair) -> None:
    port = pair.machines["spark1"].root / "sys/class/infiniband/rocep1s0f0/ports/1"
    (port / "gid_attrs/types/3").write_text("IB/RoCE v1\n")
    assert pair.bad()["spark1", "gid"].found == "rocep1s0f0 has only RoCE v1 for 198.51.100.1"
    for index in (2, 3):
        (port / f"gids/{index}").unlink()
    assert pair.bad()["spark1", "gid"].found == "rocep1s0f0 has no GID for 198.51.100.1"


def test_an_address_that_is_missing(pair: Pair) -> None:
    pair.machines["spark1"].addresses["enp1s0f0np0"] = []
    assert pair.bad()["spark1", "addresses"].reason == "rail 0 is planned as 198.51.100.1/26"


def test_no_rdma_device(pair: Pair) -> None:
    (pair.machines["spark1"].root / "sys/class/infiniband/rocep1s0f0").unlink()
    assert "falls back to TCP" in pair.bad()["spark1", "rdma"].reason


def test_a_cable_that_is_not_in(pair: Pair) -> None:
    for name in ("enp1s0f0np0", "enP2p1s0f0np0"):
        pair.change("spark2", name, "carrier", 0)
    bad = pair.bad()
    assert "enp1s0f0np0 has no link" in bad["spark2", "rails"].reason
    assert ("spark2", "mtu") not in bad


def test_a_measurement_that_is_missing_is_a_failure(pair: Pair) -> None:
    pair.pings, pair.bandwidth = [], []
    bad = pair.bad()
    assert bad["spark1 - spark2 rail 0", "jumbo_ping"].found == "not measured"
    assert bad["spark1 - spark2 rail 1", "bandwidth"].found == "not measured"


def test_a_measurement_that_failed_says_why(pair: Pair) -> None:
    broken = parse_write_bw("Completion with error at client")
    pair.measure(0, GOOD, broken["gbits"], broken["error"])
    assert "never acknowledged" in pair.bad()["spark1 - spark2 rail 0", "bandwidth"].reason


def test_a_node_that_could_not_be_read(pair: Pair) -> None:
    facts = {"spark1": pair.read("spark1")}
    found = diagnose(pair.plan, facts, {})
    assert [one.found for one in found if one.where == "spark2"] == ["not read"]


def test_thresholds_are_variables(pair: Pair) -> None:
    pair.measure(0, GOOD, 0.18)
    pair.measure(1, GOOD, 0.18)
    pair.thresholds = {"rail_gbits": "0.05", "degraded_gbits": 0.01, "port_gbits": 0.1}
    assert pair.bad() == {}


def test_without_rdma_only_the_network_is_checked(pair: Pair) -> None:
    pair.thresholds = {"rdma": "false"}
    pair.bandwidth = []
    for machine in pair.machines.values():
        for one in (machine.root / "sys/class/infiniband").iterdir():
            one.unlink()
    pair.nccl = {}
    assert pair.bad() == {}


def test_each_replica_has_its_own_thresholds(pair: Pair) -> None:
    other = {**pair.plan["replicas"]["chat"], "name": "coder"}
    planned = {**pair.plan, "replicas": {"chat": pair.plan["replicas"]["chat"], "coder": other}}
    facts = {host: pair.read(host) for host in pair.machines}
    results = {name: {**NCCL, "busbw_gbytes": 12.0} for name in planned["replicas"]}
    found = diagnose(planned, facts, {"nccl": results}, {"coder": {"busbw_gbytes": 10}})
    assert {one.where: one.status for one in found if one.check == "nccl"} == {
        "chat": "fail",
        "coder": "pass",
    }


def test_an_unknown_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="has rail_gbit; known are mtu"):
        limits_from({"rail_gbit": 1})
    with pytest.raises(AnsibleFilterError, match="has rail_gbit; known are mtu"):
        gate_filter.fabric_limits({"rail_gbit": 1})


def test_limits_are_the_known_ones_but_for_the_given() -> None:
    assert gate_filter.fabric_limits({}) == THRESHOLDS
    given = gate_filter.fabric_limits({"mtu": "4000.0", "rdma": "no", "rail_gbits": "50"})
    assert given == {**THRESHOLDS, "mtu": 4000, "rdma": False, "rail_gbits": 50.0}


def test_every_failure_has_a_reason_and_a_remedy(pair: Pair) -> None:
    pair.change("spark1", "enp1s0f0np0", "mtu", 1500)
    pair.measure(0, LOST, 10.0)
    pair.nccl = parse_nccl("# Avg bus bandwidth : 2.9")
    for one in pair.bad().values():
        assert one.reason
        assert one.remedy
        assert not one.remedy.endswith(".")


def test_findings_make_a_table(pair: Pair) -> None:
    facts = {host: pair.read(host) for host in pair.machines}
    found = diagnose(pair.plan, facts, {}, {"chat": {"mtu": 9100}})
    text = table(found)
    assert "enp1s0f0np0 MTU 9000" in text
    assert text.splitlines()[1].split()[:3] == ["spark1", "all", "FAIL"]
