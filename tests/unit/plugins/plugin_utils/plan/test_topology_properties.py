"""What holds for every good inventory, whatever the order of its hosts."""

from __future__ import annotations

import ipaddress
from collections import Counter

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fleets import Variables, fleets, replica

FEW = settings(max_examples=60, deadline=None)


@FEW
@given(fleets())
def test_a_good_fleet_has_no_mistake(fleet: Variables) -> None:
    assert plan(fleet)["mistakes"] == []


@FEW
@given(fleets(), st.randoms())
def test_the_order_of_the_inventory_changes_nothing(fleet: Variables, random) -> None:
    hosts = list(fleet)
    random.shuffle(hosts)
    assert plan({host: fleet[host] for host in hosts}) == plan(fleet)


@FEW
@given(fleets())
def test_every_host_has_one_place(fleet: Variables) -> None:
    planned = plan(fleet)
    assert set(planned["hosts"]) == set(fleet)
    for entry in planned["replicas"].values():
        rows = [planned["hosts"][host] for host in entry["hosts"]]
        assert [row["rank"] for row in rows] == list(range(entry["size"]))
        assert {row["head"] for row in rows} == {entry["head"]}
        assert [row["is_head"] for row in rows] == [True] + [False] * (entry["size"] - 1)
        for row in rows:
            assert row["world_size"] == entry["size"]
            assert row["tensor_parallel_size"] * row["pipeline_parallel_size"] == entry["size"]
            assert sorted([*row["peers"], row["host"]]) == sorted(entry["hosts"])
    assert sum(entry["size"] for entry in planned["replicas"].values()) == len(fleet)


@FEW
@given(fleets())
def test_no_address_is_used_twice_and_rails_have_subnets_of_their_own(fleet: Variables) -> None:
    planned = plan(fleet)
    used = Counter(address for row in planned["hosts"].values() for address in row["addresses"])
    assert [address for address, times in used.items() if times > 1] == []
    for row in planned["hosts"].values():
        networks = [ipaddress.ip_interface(rail["address"]).network for rail in row["rails"]]
        assert len(set(networks)) == len(networks)


@FEW
@given(fleets())
def test_no_port_is_used_twice_on_a_machine(fleet: Variables) -> None:
    planned = plan(fleet)
    for row in planned["hosts"].values():
        ports = [row["port"], row["watch_port"], row["master_port"], row["ray"]["port"]]
        ports += [row["ray"]["dashboard_port"], *row["ray"]["ports"].values()]
        assert len(set(ports)) == len(ports)
    heads = [row for row in planned["hosts"].values() if row["is_head"] and row["world_size"] > 1]
    assert len({(row["head_address"], row["master_port"]) for row in heads}) == len(heads)


@FEW
@given(fleets())
def test_all_nodes_agree_on_where_the_head_is(fleet: Variables) -> None:
    planned = plan(fleet)
    for row in planned["hosts"].values():
        if row["world_size"] > 1:
            assert row["head_address"] == planned["hosts"][row["head"]]["address"]
            assert ipaddress.ip_address(row["address"])
            for host, address in row["peer_addresses"].items():
                assert address == planned["hosts"][host]["address"]


@FEW
@given(fleets())
def test_links_join_what_can_talk(fleet: Variables) -> None:
    planned = plan(fleet)
    for entry in planned["replicas"].values():
        size, links = entry["size"], entry["links"]
        for link in links:
            a = planned["hosts"][link["a"]]["rails"][link["a_rail"]]["address"]
            b = planned["hosts"][link["b"]]["rails"][link["b_rail"]]["address"]
            assert ipaddress.ip_interface(a).network == ipaddress.ip_interface(b).network
        pairs = {(link["a"], link["b"]) for link in links}
        if size > 1:
            assert len(pairs) == (size if entry["kind"] == "ring" else size * (size - 1) // 2)


@FEW
@given(fleets())
def test_a_fleet_that_grows_at_the_end_moves_nobody(fleet: Variables) -> None:
    before = plan(fleet)["hosts"]
    after = plan({**fleet, **replica(2, "later", first=len(fleet) + 1)})["hosts"]
    assert {host: after[host] for host in fleet} == before


@FEW
@given(st.sampled_from((2, 4, 8)), st.data())
def test_given_ranks_are_kept(size: int, data: st.DataObject) -> None:
    fleet = replica(size)
    ranks = data.draw(st.permutations(range(size)))
    pinned = data.draw(st.sets(st.sampled_from(sorted(fleet))))
    for host, rank in zip(fleet, ranks, strict=True):
        if host in pinned:
            fleet[host]["dgx_vllm_rank"] = rank
    planned = plan(fleet)
    assert planned["mistakes"] == []
    for host in pinned:
        assert planned["hosts"][host]["rank"] == fleet[host]["dgx_vllm_rank"]
    assert sorted(row["rank"] for row in planned["hosts"].values()) == list(range(size))


@FEW
@given(st.sampled_from((3, 5, 6, 7, 9)), st.sampled_from(("switch", "ring")), st.booleans())
def test_any_size_that_vllm_can_do_is_planned(size: int, kind: str, pipeline: bool) -> None:
    """Class J: vLLM knows no list of sizes; a ring of three serves with three stages or with three parts."""
    parallel = {"tensor_parallel_size": 1, "pipeline_parallel_size": size} if pipeline else {}
    planned = plan(replica(size, fabric_kind=kind, **parallel))
    if size == 9 and kind == "ring":
        assert "Ring chat has 9 nodes" in planned["mistakes"][0]
        return
    assert planned["mistakes"] == []
    pairs = {frozenset((link["a"], link["b"])) for link in planned["replicas"]["chat"]["links"]}
    assert len(pairs) == (size if kind == "ring" else size * (size - 1) // 2)


@FEW
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_sizes_and_parallelism_agree_or_the_right_line_is_named(
    size: int, tensor: int, pipeline: int
) -> None:
    fleet = replica(size, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline)
    mistakes = plan(fleet)["mistakes"]
    assert bool(mistakes) == (tensor * pipeline != size)
    if mistakes:
        assert "write `dgx_vllm_tensor_parallel_size: " in mistakes[0]
