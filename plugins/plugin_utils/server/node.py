"""Everything that one node runs with. Pure functions; the role's templates only print what comes from here."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
    ServerError,
    Settings,
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def node_server(
    settings: Settings, row: Row, rails: Interfaces, addresses: Addresses, node: Node
) -> dict[str, Any]:
    """`env` (pairs of vllm.env), `serve` (vLLM's arguments), `docker` (docker run's), `command`, `start` and `watch`.

    `start` has the arguments of the program around docker run, by verb, `watch` is watch.json,
    {} for a standalone node.
    Raises ServerError for a node that cannot take its place in its replica.
    """
    words = vllm.arguments(settings, row, node)
    environment = vllm.environment(
        settings, words, fabric.environment(row, rails, addresses), by_ray=replica.by_ray(row)
    )
    container = docker.server_arguments(settings, node, fabric.container_arguments(row, rails))
    command = ["serve"] if replica.serves(row) else replica.ray_command(row)
    _one_line_each([*(f"{name}={value}" for name, value in environment), *container, *command])
    return {
        "env": environment,
        "serve": words,
        "docker": container,
        "command": command,
        "start": start.start_arguments(settings, row, rails, node),
        "watch": {} if row["world_size"] == 1 else watch.configuration(settings, row, node),
    }


def _one_line_each(texts: Iterable[str]) -> None:
    """Units and environment files hold one thing a line: what has a control character would become another thing.

    Some of it was told by other machines (commit, image, interfaces). Raises ServerError without the text, which may
    hold a secret.
    """
    for text in map(str, texts):
        if _CONTROL.search(text):
            name = re.split(r"[=\s]", text, maxsplit=1)[0][:60]
            raise ServerError(
                f"{name!r} of the server would be written with a control character or a line break, which no unit or "
                "environment file can hold: correct the variable, or the machine, that it comes from"
            )
