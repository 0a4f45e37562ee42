"""Rails that the role configured keep their numbers; cables beside them, none at all, and how rails answer ARP."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import arp

from helpers.machine import SPARK, Machine
from helpers.netplan_text import arp_text, netplan_text

A = ["198.51.100.1/26", "198.51.100.65/26", "198.51.100.129/26", "198.51.100.193/26"]


def configured(spark: Machine, *ports: int) -> list[str]:
    """The role's netplan file for these ports; returns the interfaces."""
    names = [SPARK[port, half][1] for port in ports for half in (0, 1)]
    spark.write("etc/netplan/40-cx7.yaml", netplan_text(names, A[: len(names)]))
    return names


def numbers(spark: Machine, rails: int) -> dict[int, tuple[str, bool]]:
    return {rail["rail"]: (rail["interface"], rail["link"]) for rail in spark.read(rails=rails)["rails"]}


def test_a_rail_keeps_its_number_when_the_other_port_is_unplugged_with_its_cable(spark: Machine) -> None:
    """S5: on DGX OS the functions of a port are gone without a cable, so what is present says nothing of the number."""
    names = configured(spark, 0, 1)
    spark.port(1)
    assert numbers(spark, 4) == {2: (names[2], True), 3: (names[3], True)}


def test_a_rail_keeps_its_number_when_its_twin_is_gone(spark: Machine) -> None:
    names = configured(spark, 0)
    spark.half(0, 1)
    assert numbers(spark, 2) == {1: (names[1], True)}


def test_known_rails_stay_when_nothing_has_a_link(spark: Machine) -> None:
    names = configured(spark, 0)
    for port in (0, 1):
        spark.port(port, carrier=0)
    assert numbers(spark, 2) == {0: (names[0], False), 1: (names[1], False)}


def test_a_cable_that_moved_to_the_other_port_makes_rails_of_that_port(spark: Machine) -> None:
    configured(spark, 0)
    spark.port(0, carrier=0)
    spark.port(1)
    assert numbers(spark, 2) == {0: ("enp1s0f1np1", True), 1: ("enP2p1s0f1np1", True)}


def test_more_planned_rails_are_numbered_anew(spark: Machine) -> None:
    configured(spark, 1)
    for port in (0, 1):
        spark.port(port)
    assert [name for name, _ in numbers(spark, 4).values()] == [SPARK[key][1] for key in sorted(SPARK)]


def test_a_second_cable_beside_known_rails_changes_nothing(spark: Machine) -> None:
    """Class L: an uplink on the other port."""
    names = configured(spark, 1)
    for port in (0, 1):
        spark.port(port)
    facts = spark.read(rails=2)
    assert [rail["interface"] for rail in facts["rails"]] == names
    assert (facts["refused"], facts["problems"]) == ([], [])


def test_a_second_cable_on_a_new_node_is_refused_with_the_remedy_that_works(spark: Machine) -> None:
    for port in (0, 1):
        spark.port(port)
    (sentence,) = spark.read(rails=2)["refused"]
    assert sentence.startswith(
        "Ports 0 and 1 have a link (enp1s0f0np0, enP2p1s0f0np0, enp1s0f1np1, enP2p1s0f1np1)"
    )
    assert "`dgx_vllm_fabric_interfaces: [enp1s0f0np0, enP2p1s0f0np0]`" in sentence
    facts = spark.read("enp1s0f0np0", "enP2p1s0f0np0", rails=2)
    assert facts["refused"] == []
    assert [rail["interface"] for rail in facts["rails"]] == ["enp1s0f0np0", "enP2p1s0f0np0"]
    assert spark.read(rails=4)["refused"] == []


def test_no_adapter_is_refused_and_the_cable_named_first(spark: Machine) -> None:
    (sentence,) = spark.read(rails=2)["refused"]
    assert sentence.startswith(
        "No ConnectX adapter is visible; plug the cable in at both ends, as DGX OS turns"
    )
    assert spark.read()["refused"] == []


def conf(spark: Machine, **values: tuple[int, int]) -> None:
    for name, (ignore, announce) in values.items():
        spark.write(f"proc/sys/net/ipv4/conf/{name}/arp_ignore", str(ignore))
        spark.write(f"proc/sys/net/ipv4/conf/{name}/arp_announce", str(announce))


def test_how_the_rails_answer_arp(spark: Machine) -> None:
    """S4: the kernel takes the larger one of an interface's own value and that of all."""
    spark.port(0)
    conf(spark, all=(0, 2), enp1s0f0np0=(1, 0), enP2p1s0f0np0=(0, 2))
    assert spark.read()["arp"] == {
        "text": None,
        "live": {
            "enp1s0f0np0": {"arp_ignore": 1, "arp_announce": 0},
            "enP2p1s0f0np0": {"arp_ignore": 0, "arp_announce": 2},
        },
        "weak": ["enP2p1s0f0np0"],
    }


def test_settings_of_the_file_are_those_that_are_looked_for() -> None:
    lines = [line for line in arp_text(["a.20"]).splitlines() if not line.startswith("#")]
    assert lines == [f"-net/ipv4/conf/a.20/{key} = {value}" for key, value in arp.WANTED.items()]
