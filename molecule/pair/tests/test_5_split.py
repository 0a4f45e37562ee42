"""The pair becomes two nodes that serve alone. Last, because nothing brings it together again."""

from __future__ import annotations

from node import Node
from runs import Operator


def test_nodes_that_serve_alone_have_no_watch(operator: Operator, head: Node, worker: Node) -> None:
    operator.succeed(replica="", tensor_parallel_size=1)
    for node in (head, worker):
        assert node.host.run("systemctl cat dgx-vllm-watch.service").rc != 0
        assert node.host.run("ls /etc/dgx-vllm/watch.json /var/lib/dgx-vllm/state/watch.json").stdout == ""
        assert node.completes()
