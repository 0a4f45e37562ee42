"""The order of the pair tests: complete, nobody twice in a round, all replicas side by side."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import rounds as fabric_rounds
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from hypothesis import given
from hypothesis import strategies as st

from helpers.fleets import fleet


def names(count: int) -> list[str]:
    return [f"spark{number}" for number in range(count)]


@given(st.integers(0, 33))
def test_every_pair_once_and_nobody_twice_in_a_round(count: int) -> None:
    rounds = fabric_rounds.round_robin(names(count))
    pairs = [frozenset(pair) for tests in rounds for pair in tests]
    assert Counter(pairs) == Counter(frozenset(pair) for pair in combinations(names(count), 2))
    assert len([tests for tests in rounds if tests]) == (count - 1 if count % 2 == 0 else count) * (count > 1)
    for tests in rounds:
        assert max(Counter(host for pair in tests for host in pair).values(), default=1) == 1


@given(st.integers(3, 16))
def test_a_ring_needs_two_rounds_or_three(count: int) -> None:
    rounds = fabric_rounds.ring_rounds(names(count))
    assert len(rounds) == (3 if count % 2 else 2)
    assert sum(len(tests) for tests in rounds) == count
    for tests in rounds:
        assert max(Counter(host for pair in tests for host in pair).values()) == 1


@pytest.mark.parametrize(("nodes", "pairs", "rounds"), [(2, 1, 1), (4, 6, 3), (8, 28, 7)])
def test_rounds_grow_with_the_nodes_and_not_with_the_pairs(nodes: int, pairs: int, rounds: int) -> None:
    planned = plan(fleet([nodes]))
    assert planned["mistakes"] == []
    found = fabric_rounds.schedule(list(planned["replicas"].values()))
    assert (sum(map(len, found)), len(found)) == (pairs, rounds)


def test_replicas_are_tested_side_by_side() -> None:
    planned = plan(fleet([8, 4, 2, 2, 1]))
    rounds = fabric_rounds.schedule(list(planned["replicas"].values()))
    assert [len(tests) for tests in rounds] == [4 + 2 + 1 + 1, 4 + 2, 4 + 2, 4, 4, 4, 4]
    for tests in rounds:
        assert max(Counter(host for test in tests for host in (test["a"], test["b"])).values()) == 1
        assert all(test["rails"] == [[0, 0], [1, 1]] for test in tests)


def test_a_ring_tests_the_cables_that_are_there() -> None:
    planned = plan(fleet([4], "ring"))
    rounds = fabric_rounds.schedule(list(planned["replicas"].values()))
    assert [[(test["a"], test["b"]) for test in tests] for tests in rounds] == [
        [("r0n0", "r0n1"), ("r0n2", "r0n3")],
        [("r0n1", "r0n2"), ("r0n3", "r0n0")],
    ]
    assert all(test["rails"] == [[0, 2], [1, 3]] for tests in rounds for test in tests)


def test_nothing_to_test() -> None:
    assert fabric_rounds.schedule(list(plan(fleet([1, 1]))["replicas"].values())) == []
