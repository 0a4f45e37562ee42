"""Each bad inventory is refused with a sentence that names the hosts and the lines to change."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import DEFAULTS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan, rank_table

from helpers.fleets import Variables, hosts, replica


def changed(fleet: Variables, host: str, **values: Any) -> Variables:
    fleet[host].update({f"dgx_vllm_{name}": value for name, value in values.items()})
    return fleet


def without(fleet: Variables, host: str, name: str) -> Variables:
    del fleet[host][f"dgx_vllm_{name}"]
    return fleet


A = ["198.51.100.1/26", "198.51.100.65/26"]
B = ["198.51.100.2/26", "198.51.100.66/26"]


def given_pair(a: Any = A, b: Any = B, **more: Any) -> Variables:
    fleet = replica(2, fabric_prefix="", **more)
    changed(fleet, "spark1", fabric_addresses=a)
    return changed(fleet, "spark2", fabric_addresses=b)


CASES: dict[str, tuple[Variables, str]] = {
    "a ring of nine": (
        replica(9, fabric_kind="ring"),
        r"Ring chat has 9 nodes, and this role plans addresses for rings of up to 8; write dgx_vllm_fabric_addresses",
    ),
    "tp does not fit": (
        replica(4, tensor_parallel_size=2),
        r"4 nodes .* 2 x .* 1 is 2; write `dgx_vllm_tensor_parallel_size: 4` for them",
    ),
    "three nodes without either": (
        replica(3, tensor_parallel_size=1),
        r"write `dgx_vllm_tensor_parallel_size: 3`, or `dgx_vllm_pipeline_parallel_size: 3` alone if 3 does not divide",
    ),
    "tp on one node": (
        hosts(1, tensor_parallel_size=2),
        r"spark1 has 1 node .*`dgx_vllm_tensor_parallel_size: 1`",
    ),
    "pp does not fit": (
        replica(4, tensor_parallel_size=2, pipeline_parallel_size=3),
        r"write `dgx_vllm_tensor_parallel_size: 4` and `dgx_vllm_pipeline_parallel_size: 1`",
    ),
    "a list of replicas": (
        changed(replica(2), "spark2", replica=["chat", "coder"]),
        r"spark2 is in 2 replicas \(chat, coder\).*write one name",
    ),
    "two models": (
        changed(replica(2), "spark2", model="org/other"),
        r"dgx_vllm_model is Qwen.* on spark1 and org/other on spark2; write one value for all of spark1, "
        r"spark2",
    ),
    "two images": (
        changed(replica(2, image="a:1"), "spark2", image="a:2"),
        r"dgx_vllm_image is a:1 on spark1 and a:2 on spark2",
    ),
    "two ports": (
        changed(replica(2), "spark2", port=8001),
        r"dgx_vllm_port is 8000 on spark1 and 8001 on spark2",
    ),
    "arguments of one": (
        changed(replica(2), "spark1", extra_args=["--x"]),
        r"dgx_vllm_extra_args is \['--x'\] on spark1 and not set on spark2",
    ),
    "one address twice": (
        given_pair(b=["198.51.100.1/26", "198.51.100.66/26"]),
        r"The address 198.51.100.1 is given to rail 0 of spark1 and rail 0 of spark2; change one",
    ),
    "one address in two replicas": (
        {
            **given_pair(),
            **{
                host: {**values, "dgx_vllm_replica": "coder", "ansible_host": f"192.0.2.9{number}"}
                for number, (host, values) in enumerate(
                    (
                        ("other1", given_pair()["spark1"]),
                        ("other2", given_pair(b=["198.51.100.3/26", "198.51.100.67/26"])["spark2"]),
                    )
                )
            },
        },
        r"198.51.100.1 is given to rail 0 of other1 and rail 0 of spark1|rail 0 of spark1 and rail 0 of "
        r"other1",
    ),
    "a rail is missing": (
        given_pair(b=["198.51.100.2/26"]),
        r"spark2 has 1 rail and spark1 has 2; write the missing addresses of dgx_vllm_fabric_addresses on "
        r"spark2",
    ),
    "half a port on both": (
        given_pair(A[:1], B[:1]),
        r"1 rail per node, .*one of them carries half the bandwidth",
    ),
    "no address at all": (
        replica(2, fabric_prefix=""),
        r"spark1, spark2 of replica chat: no address on the fabric",
    ),
    "one node without addresses": (given_pair(b=[]), r"spark2 of replica chat: no address on the fabric"),
    "rails in one subnet": (
        given_pair(["198.51.100.1/24", "198.51.100.2/24"], ["198.51.100.3/24", "198.51.100.4/24"]),
        r"spark1: rails 0 and 1 .* are in one subnet, where the kernel mixes them up",
    ),
    "rails that do not meet": (
        given_pair(b=["203.0.113.2/26", "198.51.100.66/26"]),
        r"rail 0 is 198.51.100.1/26 on spark1 and 203.0.113.2/26 on spark2, .*give spark2 an address of "
        r"198.51.100.0/26",
    ),
    "management among the rails": (
        replica(2, fabric_prefix="192.0.2.0/24"),
        r"spark1: the ansible_host 192.0.2.1 is in the subnet of rail 0 .*the management network cannot be "
        r"a rail",
    ),
    "one machine twice": (
        {**replica(2), "again": {**hosts(1)["spark1"]}},
        r"again and spark1 have the same ansible_host 192.0.2.1, so one machine is in 2 places \(replicas "
        r"again, chat\)",
    ),
    "one rank twice": (
        changed(changed(replica(2), "spark1", rank=0), "spark2", rank=0),
        r"spark1 and spark2 both have `dgx_vllm_rank: 0`",
    ),
    "a rank too high": (changed(replica(2), "spark2", rank=2), r"spark2: dgx_vllm_rank is 2, .*from 0 to 1"),
    "no number": (
        changed(replica(2), "spark2", port="http"),
        r"spark2: dgx_vllm_port is 'http'; set it to a port from 1 to 65535",
    ),
    "no port": (
        replica(2, master_port=70000),
        r"spark1: dgx_vllm_master_port is 70000; set it to a port from 1 to 65535",
    ),
    "three ports": (replica(2, fabric_ports=3), r"dgx_vllm_fabric_ports is 3, but the machine has two ports"),
    "no executor": (replica(2, executor="dask"), r"dgx_vllm_executor is 'dask'; write one of mp, ray"),
    "one port for two things": (
        replica(2, port=29501),
        r"dgx_vllm_port and dgx_vllm_master_port are both 29501",
    ),
    "ray's ports": (
        replica(2, executor="ray", ray_port=7998),
        r"dgx_vllm_port and Ray's object_manager \(dgx_vllm_ray_port \+ 2\) are both 8000",
    ),
    "ray's workers": (replica(2, executor="ray", port=10500), r"dgx_vllm_port is 10500, within 10002-10999"),
    "a cable for four": (
        replica(4, fabric_kind="direct"),
        r"4 nodes, but a cable joins only two; write .*switch` or .*ring`",
    ),
    "a ring of two": (
        replica(2, fabric_kind="ring"),
        r"two nodes, which cannot form a ring; write `dgx_vllm_fabric_kind: direct`",
    ),
    "rings on one prefix": (
        {**replica(4, "a", fabric_kind="ring"), **replica(4, "b", 5, fabric_kind="ring")},
        r"Replicas a, b share dgx_vllm_fabric_prefix 198.51.100.0/24, and one is a ring",
    ),
    "prefix too small": (
        replica(4, fabric_prefix="198.51.100.0/29"),
        r"198.51.100.0/29 is too small.*use a /2\d or larger",
    ),
    "no prefix": (
        replica(2, fabric_prefix="fast"),
        r"dgx_vllm_fabric_prefix is 'fast' .*such as 198.51.100.0/24",
    ),
    "no address": (
        given_pair(["198.51.100.1", A[1]]),
        r"'198.51.100.1' has no room for a peer.*write the prefix length",
    ),
    "the network's own address": (given_pair(["198.51.100.0/26", A[1]]), r"own or its broadcast address"),
    "an address that is text": (given_pair("198.51.100.1/26"), r"dgx_vllm_fabric_addresses must be a list"),
    "the name of a host": (
        {**replica(2, "spark9"), **hosts(1, 9)},
        r"`dgx_vllm_replica: spark9` of spark1, spark2 is the name of a standalone host",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_mistake_is_named(case: str) -> None:
    fleet, sentence = CASES[case]
    mistakes = plan(fleet)["mistakes"]
    assert any(re.search(sentence, mistake) for mistake in mistakes), mistakes


@pytest.mark.parametrize("case", CASES)
def test_every_mistake_is_a_sentence(case: str) -> None:
    for mistake in plan(CASES[case][0])["mistakes"]:
        assert mistake.endswith("."), mistake
        assert re.search(r"; |: ", mistake), mistake
        assert "None" not in mistake
        assert "  " not in mistake


def test_a_ring_without_a_management_address() -> None:
    fleet = replica(4, fabric_kind="ring")
    fleet["spark3"]["ansible_host"] = "spark3.example.com"
    (mistake,) = plan(fleet)["mistakes"]
    assert mistake.startswith("spark3 is in the ring chat")
    assert "`dgx_vllm_control_address: 192.0.2.11`" in mistake
    assert plan(changed(fleet, "spark3", control_address="192.0.2.3"))["mistakes"] == []


def test_a_host_in_the_group_of_another_replica() -> None:
    fleet = {**replica(2, "a"), **replica(2, "b", 3)}
    groups = {"a": ["spark1", "spark2", "spark3"], "b": ["spark3", "spark4"], "all": list(fleet)}
    (mistake,) = plan(fleet, groups)["mistakes"]
    assert mistake.startswith(
        "spark3 is in the group a, but its dgx_vllm_replica is b; a node serves one model"
    )


def test_all_mistakes_come_at_once() -> None:
    fleet = {**replica(3, "a", fabric_kind="direct"), **replica(2, "b", 4, tensor_parallel_size=4)}
    assert len(plan(changed(fleet, "spark4", port="x"))["mistakes"]) >= 3


def test_places_in_the_inventory_are_named() -> None:
    mistakes = plan(
        replica(2, tensor_parallel_size=4), None, lambda value: "pair.yml:9" if value == 4 else ""
    )
    assert "is 4 (pair.yml:9); write" in mistakes["mistakes"][0]


def test_numbers_as_strings_mean_the_same() -> None:
    fleet = replica(2)
    as_text = {
        host: {name: str(value) if isinstance(value, int) else value for name, value in values.items()}
        for host, values in fleet.items()
    }
    assert plan(as_text) == plan(fleet)


def test_defaults_alone_are_a_replica_of_one() -> None:
    planned = plan({"spark1": {}})
    row = planned["hosts"]["spark1"]
    assert planned["mistakes"] == []
    assert (row["replica"], row["rank"], row["world_size"], row["kind"]) == ("spark1", 0, 1, "none")
    assert (row["port"], row["peers"], row["rails"], row["address"]) == (DEFAULTS["port"], [], [], "")


def test_the_table_has_one_line_per_host() -> None:
    lines = rank_table(plan({**replica(2), **hosts(1, 3)})).splitlines()
    assert lines[0].split()[:4] == ["REPLICA", "RANK", "HOST", "HEAD"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["chat", "0", "spark1", "head"],
        ["chat", "1", "spark2", "spark1"],
        ["spark3", "0", "spark3", "head"],
    ]


@pytest.mark.parametrize(
    "name", ["chat large", "team/chat", "../../x", "chat\n", "-chat", "cäfe", "a;b", " "]
)
def test_a_replica_is_named_so_that_files_and_findings_can_be_named_after_it(name: str) -> None:
    mistakes = plan(replica(2, replica=name))["mistakes"]
    assert any(f"The replica is called {name!r}" in sentence for sentence in mistakes)


@pytest.mark.parametrize("name", ["chat", "chat-large", "qwen3_80b.fp8", "2", "R1"])
def test_names_of_the_field_are_taken(name: str) -> None:
    assert plan(replica(2, replica=name))["mistakes"] == []


@pytest.mark.parametrize("host", ["spark 1", "a/b", "..", "spark1\n"])
def test_a_host_is_named_so_that_files_and_findings_can_be_named_after_it(host: str) -> None:
    fleet = {host: hosts(1)["spark1"]}
    assert any(
        f"A host of the inventory is called {host!r}" in sentence for sentence in plan(fleet)["mistakes"]
    )
