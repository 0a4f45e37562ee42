"""The pair becomes two standalone nodes. Last, because nothing joins them again."""

from __future__ import annotations

from testlib.node import WATCH, Node
from testlib.runs import Operator


def test_standalone_nodes_have_no_watch(operator: Operator, head: Node, worker: Node) -> None:
    operator.succeed(replica="", tensor_parallel_size=1)
    for node in (head, worker):
        assert not node.host.service(WATCH).exists
        assert not node.host.file("/etc/dgx-vllm/watch.json").exists
        assert not node.host.file("/var/lib/dgx-vllm/state/watch.json").exists
        assert node.completes()
