"""What discovery makes of machines that look like a DGX Spark, an OEM box, a damaged one and a virtual one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.management import own_session
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import Options
from ansible_collections.dgx_vllm.spark.plugins.modules import dgx_vllm_fabric as module

from helpers.machine import SPARK, Machine

A = ("198.51.100.1/26", "198.51.100.65/26")


def rails(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["interface"], one["rdma"]) for one in found["rails"]]


def established(*own: str) -> str:
    """What ss prints for connections of these addresses and ports with one that is far away."""
    return "".join(f"0      0      {end}          192.0.2.9:50000\n" for end in own)


def test_port_0_cabled(spark: Machine) -> None:
    spark.port(0, A)
    spark.port(1, carrier=0, operstate="down")
    found = spark.read()
    assert found["problems"] == []
    assert rails(found) == [("enp1s0f0np0", "rocep1s0f0"), ("enP2p1s0f0np0", "roceP2p1s0f0")]
    assert [(one["port"], one["half"]) for one in found["rails"]] == [(0, 0), (0, 1)]
    one = spark.device("enP2p1s0f0np0")
    assert (one["twin"], one["pcie_width"], one["firmware"]) == ("enp1s0f0np0", 4, "28.45.4028")
    assert (one["carrier"], one["speed_mbit"], one["mtu"]) == (True, 200000, 9000)
    assert one["addresses"] == [A[1]]
    assert {
        "index": 3,
        "type": "RoCE v2",
        "interface": "enP2p1s0f0np0",
        "address": "198.51.100.65",
    }.items() <= one["gids"][-1].items()


def test_port_1_cabled_instead(spark: Machine) -> None:
    spark.port(0, carrier=0)
    spark.port(1)
    found = spark.read()
    assert [one["port"] for one in found["rails"]] == [1, 1]
    assert [one["rail"] for one in found["rails"]] == [0, 1]


def test_both_ports_cabled(spark: Machine) -> None:
    spark.port(1)
    spark.port(0)
    assert [name for name, _ in rails(spark.read())] == [
        SPARK[key][1] for key in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]


def test_names_say_nothing(spark: Machine) -> None:
    """mlx5_N and ethN in an order that has nothing to do with the ports."""
    for key, names in {
        (0, 0): ("eth7", "mlx5_3"), (0, 1): ("eth2", "mlx5_0"), (1, 0): ("eth1", "mlx5_1"), (1, 1): ("eth9", "mlx5_2"),
    }.items():  # fmt: skip
        spark.half(*key, names=names, carrier=1 if key[0] == 0 else 0)
    found = spark.read()
    assert rails(found) == [("eth7", "mlx5_3"), ("eth2", "mlx5_0")]
    assert spark.device("eth1")["twin"] == "eth9"


def test_one_half_at_width_two(spark: Machine) -> None:
    spark.half(0, 0)
    spark.half(0, 1, width=2)
    assert spark.device("enP2p1s0f0np0")["pcie_width"] == 2
    assert len(spark.read()["rails"]) == 2


def test_one_half_with_a_small_mtu(spark: Machine) -> None:
    spark.half(0, 0)
    spark.half(0, 1, mtu=1500)
    assert [one["mtu"] for one in spark.read()["devices"]] == [1500, 9000]


def test_no_gid_for_the_address(spark: Machine) -> None:
    spark.port(0, A, gid=None)
    assert [one["type"] for one in spark.device("enp1s0f0np0")["gids"]] == ["IB/RoCE v1"]


def test_half_a_port_is_named(spark: Machine) -> None:
    spark.half(0, 0)
    spark.half(0, 1, carrier=None, operstate="down")
    found = spark.read()
    assert [(one["interface"], one["link"]) for one in found["rails"]] == [
        ("enp1s0f0np0", True),
        ("enP2p1s0f0np0", False),
    ]
    (problem,) = found["problems"]
    assert "enP2p1s0f0np0, the other PCIe function of port 0, is down" in problem
    assert "ip link set enP2p1s0f0np0 up" in problem


def test_a_half_without_a_twin_is_named(spark: Machine) -> None:
    spark.half(0, 0)
    (problem,) = spark.read()["problems"]
    assert "has no second PCIe function on another root" in problem


def test_nothing_cabled(spark: Machine) -> None:
    spark.port(0, carrier=0)
    spark.port(1, carrier=None)
    found = spark.read()
    assert found["rails"] == []
    (problem,) = found["problems"]
    assert "enp1s0f0np0 has no link" in problem
    assert "enp1s0f1np1 is down" in problem


def test_no_adapter(spark: Machine) -> None:
    (problem,) = spark.read()["problems"]
    assert problem.startswith("No ConnectX adapter is visible")


def test_the_driver_for_rdma_is_not_loaded(spark: Machine) -> None:
    spark.port(0, rdma=False)
    spark.write("proc/modules", "mlx5_core 1 0 - Live 0x0")
    found = spark.read()
    assert rails(found) == [("enp1s0f0np0", ""), ("enP2p1s0f0np0", "")]
    assert (found["modules"]["mlx5_core"], found["modules"]["mlx5_ib"]) == (True, False)


def test_the_management_network_on_the_adapter_is_no_rail(spark: Machine) -> None:
    """Somebody reaches the machine over port 1: the default route, or just the address in the inventory."""
    spark.port(0)
    spark.half(1, 0, address="203.0.113.5/24")
    spark.half(1, 1)
    found = spark.read(management=["203.0.113.5"])
    assert found["management"] == ["enP7s7", "enp1s0f1np1"]
    assert "enp1s0f1np1" not in [name for name, _ in rails(found)]
    refused = spark.read("enp1s0f1np1", management=["203.0.113.5"])
    assert refused["rails"] == []
    assert "enp1s0f1np1 carries the management network, so it cannot be a rail" in refused["problems"][0]


def test_a_default_route_over_a_bridge_protects_its_ports(spark: Machine) -> None:
    names = spark.port(0)
    spark.interface("br0", "sys/devices/virtual", speed=None)
    spark.write(f"sys/devices/virtual/net/br0/lower_{names[0]}/x", "")
    route = spark.root / "proc/net/route"
    route.write_text("Iface\nbr0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\n")
    assert spark.read()["management"] == ["br0", "enp1s0f0np0"]


def test_an_open_ssh_session_protects_its_interface(spark: Machine) -> None:
    spark.port(0, A)
    spark.connections = established("198.51.100.1:22")
    found = spark.read()
    assert found["management"] == ["enP7s7", "enp1s0f0np0"]
    assert rails(found) == [("enP2p1s0f0np0", "roceP2p1s0f0")]


@pytest.mark.parametrize("server", ["198.51.100.1", "::ffff:198.51.100.1", "fd00::1"])
def test_the_own_session_protects_its_interface_at_any_port(spark: Machine, server: str) -> None:
    """Without a default route, over port 2222, behind a sudo that took the variable away."""
    names = spark.port(0, A)
    spark.addresses[names[0]].append("fd00::1/64")
    spark.write("proc/net/route", "head")
    spark.write("proc/self/environ", "PATH=/bin\0USER=root")
    spark.write("proc/self/stat", "30 (python3 (x)) S 20 30 30 0")
    spark.write("proc/20/environ", "PATH=/bin\0SUDO_USER=operator")
    spark.write("proc/20/stat", "20 (sudo) S 10 20 20 0")
    spark.write("proc/10/environ", f"HOME=/\0SSH_CONNECTION=192.0.2.9 40000 {server} 2222\0X=1")
    assert spark.read()["management"] == [names[0]]


def test_other_sessions_at_that_port_protect_theirs(spark: Machine) -> None:
    spark.port(0, A)
    spark.write("proc/self/environ", "SSH_CONNECTION=192.0.2.9 40000 192.0.2.11 2222")
    spark.connections = established("198.51.100.65:2222", "198.51.100.1:8000")
    assert spark.read()["management"] == ["enP2p1s0f0np0", "enP7s7"]


def test_without_ss_the_sessions_are_unknown_and_the_report_says_so(spark: Machine) -> None:
    spark.port(0, A)
    spark.connections = None
    found = spark.read()
    assert found["problems"] == [
        "ss is not installed, so open ssh sessions are not seen; install or repair iproute2."
    ]
    assert found["management"] == ["enP7s7"]


def test_no_session_at_all(spark: Machine) -> None:
    spark.write("proc/self/stat", "30 (python3) S 1 30 30 0")
    spark.write("proc/1/environ", "SSH_CONNECTION=broken\0")
    spark.write("proc/1/stat", "1 (systemd) S 0 1 1 0")
    assert own_session(spark.root) is None


def test_a_name_in_the_inventory_protects_its_interface(spark: Machine) -> None:
    spark.port(0, A)
    spark.names = {"spark1.example.com": "198.51.100.65"}
    found = spark.read(management=["spark1.example.com", "nobody.example.com"])
    assert found["management"] == ["enP2p1s0f0np0", "enP7s7"]


def test_a_default_route_of_ipv6(spark: Machine) -> None:
    spark.port(0)
    zero = "0" * 32
    spark.write(
        "proc/net/ipv6_route",
        f"{zero} 00 {zero} 00 fe80 0 0 0 0 enp1s0f0np0\n{zero} 00 {zero} 00 0 0 0 0 0 lo",
    )
    assert spark.read()["management"] == ["enP7s7", "enp1s0f0np0"]


def test_bonded_functions_are_no_rails(spark: Machine) -> None:
    spark.write("sys/devices/virtual/net/bond0/mtu", "9000")
    for name in spark.port(0):
        device = next((spark.root / "sys/class/net" / name).resolve().parents[0].iterdir())
        (device / "master").symlink_to(spark.root / "sys/devices/virtual/net/bond0")
    found = spark.read()
    assert found["rails"] == []
    assert "is part of bond0; a bond or bridge defeats RDMA" in found["problems"][0]


def test_virtual_functions_and_foreign_adapters_are_no_rails(spark: Machine) -> None:
    spark.port(0)
    spark.write("sys/devices/pci0000:00/0000:00:00.0/0000:01:00.0/physfn/vendor", "0x15b3")
    assert spark.device("enp1s0f0np0")["kind"] == "virtual"
    spark.write("sys/devices/pci0002:00/0002:00:00.0/0002:01:00.0/vendor", "0x8086")
    assert spark.device("enP2p1s0f0np0")["kind"] == "foreign"
    assert spark.read()["rails"] == []


def test_soft_roce_counts_only_when_named(spark: Machine) -> None:
    for number, address in enumerate(A):
        spark.plain(f"ens{number + 4}")
        spark.soft(f"ens{number + 4}", f"rxe{number}", address)
    assert spark.read()["rails"] == []
    assert "ens4 is software RDMA, for tests" in spark.read()["problems"][0]
    found = spark.read("ens4", "ens5")
    assert (rails(found), found["problems"]) == ([("ens4", "rxe0"), ("ens5", "rxe1")], [])
    assert found["devices"][0]["gids"][-1]["address"] == "198.51.100.1"


def test_named_interfaces_keep_their_order(spark: Machine) -> None:
    spark.port(0)
    assert [name for name, _ in rails(spark.read("enP2p1s0f0np0", "enp1s0f0np0"))] == [
        "enP2p1s0f0np0",
        "enp1s0f0np0",
    ]
    found = spark.read("enp9s0")
    assert "names enp9s0, which this machine does not have" in found["problems"][0]


def test_a_machine_that_shows_nothing_is_no_error(tmp_path) -> None:
    bare = Machine(tmp_path / "x")
    bare.root = tmp_path / "empty"
    bare.root.mkdir()
    found = bare.read()
    assert (found["devices"], found["rails"]) == ([], [])


def test_the_module_reads_this_machine_in_check_mode(run_module) -> None:
    found = run_module("dgx_vllm_fabric", _ansible_check_mode=True)
    assert found["changed"] is False
    assert isinstance(found["fabric"]["devices"], list)


def test_documentation_names_every_option_and_key(spark: Machine) -> None:
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    waiting = {name: options.pop(name)["default"] for name in ("addresses", "timeout")}
    assert waiting == {"addresses": [], "timeout": 0}
    assert {name: option["default"] for name, option in options.items()} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in Options()._asdict().items()
    }
    assert set(yaml.safe_load(module.RETURN)["fabric"]["contains"]) == set(spark.read())


@pytest.mark.parametrize("name", ["devices", "rails"])
def test_documentation_names_the_fields(spark: Machine, name: str) -> None:
    spark.port(0)
    said = yaml.safe_load(module.RETURN)["fabric"]["contains"][name]["description"]
    hidden = {
        "function",
        "exists",
        "vendor",
        "virtual",
        "pcie_speed",
        "operstate",
        "board",
        "rdma_phys_state",
        "link_layer",
    }
    fields = set(spark.read()[name][0]) - hidden
    assert [field for field in sorted(fields) if f"V({field})" not in str(said)] == []
