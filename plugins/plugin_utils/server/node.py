"""Everything that one node runs with. Pure functions; the role's templates only print what comes from here."""

from __future__ import annotations

from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import (
    docker,
    fabric,
    replica,
    start,
    vllm,
    watch,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import (
    Addresses,
    Interfaces,
    Node,
    Row,
    Settings,
)


def node_server(
    settings: Settings, row: Row, rails: Interfaces, addresses: Addresses, node: Node
) -> dict[str, Any]:
    """`env` (pairs of vllm.env), `serve` (vLLM's arguments), `docker` (docker run's), `command`, `start` and `watch`.

    `start` has the arguments of the program around docker run, by verb, `watch` is watch.json,
    {} for a standalone node.
    Raises ServerError for a node that cannot take its place in its replica.
    """
    words = vllm.arguments(settings, row, node)
    return {
        "env": vllm.environment(settings, words, fabric.environment(row, rails, addresses)),
        "serve": words,
        "docker": docker.server_arguments(settings, node, fabric.container_arguments(row, rails)),
        "command": ["serve"] if replica.serves(row) else replica.ray_command(row),
        "start": start.start_arguments(settings, row, rails, node),
        "watch": {} if row["world_size"] == 1 else watch.configuration(settings, row, node),
    }
