"""Everything that one node runs with. Pure functions; the role's templates only print what comes from here."""

from __future__ import annotations

from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import (
    docker,
    fabric,
    replica,
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
    """`env` (pairs of vllm.env), `serve` (vLLM's arguments), `docker` (docker run's), `command`, `watch` (watch.json).

    A standalone node has no watch: {}. Raises ServerError for a node that cannot take its place in its replica.
    """
    words = vllm.arguments(settings, row, node)
    return {
        "env": vllm.environment(
            settings, words, fabric.environment(row, rails, addresses), by_ray=replica.by_ray(row)
        ),
        "serve": words,
        "docker": docker.server_arguments(settings, node, fabric.container_arguments(row, rails)),
        "command": ["serve"] if replica.serves(row) else replica.ray_command(row),
        "watch": {} if row["world_size"] == 1 else watch.configuration(settings, row, node),
    }
