"""Planned addresses: what they are, and what must not move when nodes are added."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan import addresses as fabric
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from hypothesis import given
from hypothesis import strategies as st

from helpers.fleets import replica

PREFIX = "198.51.100.0/24"


def test_a_pair_on_one_cable() -> None:
    assert fabric.plan_shared(PREFIX, 0) == ["198.51.100.1/26", "198.51.100.65/26"]
    assert fabric.plan_shared(PREFIX, 1) == ["198.51.100.2/26", "198.51.100.66/26"]


def test_a_second_port_moves_no_address_of_the_first() -> None:
    one, two = fabric.plan_shared(PREFIX, 5, ports=1), fabric.plan_shared(PREFIX, 5, ports=2)
    assert two[:2] == one
    assert two[2:] == ["198.51.100.134/26", "198.51.100.198/26"]


def test_a_ring_of_four() -> None:
    nodes = [fabric.plan_ring(PREFIX, rank, 4) for rank in range(4)]
    assert nodes[0] == ["198.51.100.33/28", "198.51.100.49/28", "198.51.100.1/28", "198.51.100.17/28"]
    for rank, node in enumerate(nodes):
        following = nodes[(rank + 1) % 4]
        for half in (0, 1):
            ours, theirs = ipaddress.ip_interface(node[half]), ipaddress.ip_interface(following[2 + half])
            assert ours.network == theirs.network
            assert ours.ip != theirs.ip


@given(st.integers(0, 6), st.integers(2, 7))
def test_a_ring_that_grows_moves_only_the_port_that_is_recabled(rank: int, size: int) -> None:
    if rank >= size:
        rank %= size
    before, after = fabric.plan_ring(PREFIX, rank, size), fabric.plan_ring(PREFIX, rank, size + 1)
    assert before[2:] == after[2:]
    assert (before[:2] == after[:2]) == (rank != size - 1)


@given(st.integers(0, 60), st.sampled_from((1, 2)))
def test_nothing_but_prefix_and_index_decides(index: int, ports: int) -> None:
    addresses = [ipaddress.ip_interface(text) for text in fabric.plan_shared(PREFIX, index, ports)]
    assert len({address.network for address in addresses}) == 2 * ports
    network = ipaddress.ip_network(PREFIX)
    assert all(address.ip in network for address in addresses)
    assert all(address.ip not in (address.network[0], address.network[-1]) for address in addresses)


def test_indexes_keep_what_is_given_and_fill_the_rest() -> None:
    assert fabric.indexes({"a": None, "b": 0, "c": None, "d": 5}) == {"a": 1, "b": 0, "c": 2, "d": 5}


def test_who_comes_or_goes_moves_only_those_after_it_without_an_index() -> None:
    fleet = dict.fromkeys(("spark1", "spark2", "spark3", "spark4"))
    assert fabric.indexes(fleet) == {"spark1": 0, "spark2": 1, "spark3": 2, "spark4": 3}
    assert fabric.indexes({"spark1": None, "spark3": None, "spark4": 3}) == {
        "spark1": 0, "spark3": 1, "spark4": 3,
    }  # fmt: skip


def test_an_index_holds_the_addresses_when_a_node_is_taken_out() -> None:
    fleet = replica(4)
    for number, variables in enumerate(fleet.values()):
        variables["dgx_vllm_fabric_index"] = number
    before = plan(fleet)["hosts"]
    pair = {host: {**fleet[host], "dgx_vllm_tensor_parallel_size": 2} for host in ("spark1", "spark4")}
    after = plan(pair)
    assert after["mistakes"] == []
    assert {host: row["addresses"] for host, row in after["hosts"].items()} == {
        host: before[host]["addresses"] for host in pair
    }


def test_a_prefix_that_is_full() -> None:
    with pytest.raises(fabric.AddressError, match=r"/28 is too small.*use a /27 or larger"):
        fabric.plan_shared("198.51.100.0/28", 2)
    with pytest.raises(fabric.AddressError, match="use a /24 or larger"):
        fabric.plan_ring("198.51.100.0/25", 0, 4)
    assert len(fabric.plan_shared("198.51.100.0/27", 2)) == 2
