"""Arguments of the program that the unit runs around `docker run` (roles/dgx_vllm/files/start.py)."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import connect_host
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.fabric import container_arguments
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import (
    Interfaces,
    Node,
    Row,
    Settings,
)


def start_arguments(settings: Settings, row: Row, rails: Interfaces, node: Node) -> dict[str, list[str]]:
    """Verb -> its arguments. @RELEASE@ stands for the release's name, which is not known before its files are."""
    note = ["--note", node["start_note"]]
    release = [*note, "--release", "@RELEASE@"]
    cdi = any(str(word).startswith("--device=nvidia.com/") for word in node["gpu"])
    needed = ["--gpu", "cdi" if cdi else "runtime"]
    ready = ["--host", connect_host(str(settings["dgx_vllm_host"])), "--port", str(settings["dgx_vllm_port"])]
    if row["world_size"] > 1:
        needed += ["--rdma"] if container_arguments(row, rails) else []
        for rail, planned in zip(rails, row["rails"], strict=False):
            needed += ["--address", f"{rail['interface']}={str(planned['address']).partition('/')[0]}"]
        ready = ["--watch", node["watch_state"]]
    return {"check": release, "wait": [*release, *needed], "ready": [*note, *ready], "end": note}
