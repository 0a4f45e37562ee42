"""Releases of a replica: its nodes change release and roll back together."""

from __future__ import annotations

from testlib.node import Node
from testlib.runs import Operator

Pair = tuple[str, str]


def current(head: Node, worker: Node) -> Pair:
    return head.current, worker.current


def test_a_new_release_and_its_rollback(operator: Operator, head: Node, worker: Node) -> None:
    first = current(head, worker)
    operator.succeed(max_num_seqs=3)
    second = current(head, worker)
    assert not set(first) & set(second)
    operator.succeed("playbooks/rollback.yml")
    assert current(head, worker) == first
    assert head.completes()


def test_a_release_that_does_not_serve_is_current_on_no_node(
    operator: Operator, head: Node, worker: Node
) -> None:
    before = current(head, worker)
    run = operator.fail(extra_args=["--no-such-flag"])
    assert "is back in service and healthy" in run.message
    assert current(head, worker) == before
    assert head.completes()


def test_an_incomplete_replica_is_refused_before_any_change(operator: Operator, head: Node) -> None:
    run = operator.fail("site.yml", "--limit", "spark1")
    assert "spark2" in run.message
    assert run.changed == []
    assert head.completes()
