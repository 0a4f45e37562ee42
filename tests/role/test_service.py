"""Before it writes anything, the service stage refuses nodes of a replica that would not serve the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import Run, inventory, play

NODES = ("spark1", "spark2")
DIFFERENT = {"image": {"id": "sha256:2"}, "model": {"commit": "b" * 40}}


def state(**second: dict[str, Any]) -> dict[str, Any]:
    image = {"present": True, "id": "sha256:1"}
    model = {"kind": "hub", "present": True, "commit": "a" * 40, "size_bytes": 1000}
    memory = {"total_bytes": 128 * 10**9, "available_bytes": 120 * 10**9}
    return {
        "docker": {"installed": True, "version": "28.5.2"},
        "packages": {"nvidia-container-toolkit": "1.18.0-1"},
        "memory": memory,
        "image": {**image, **second.get("image", {})},
        "model": {**model, **second.get("model", {})},
    }


def service(place: Path, second: dict[str, Any], **variables: Any) -> Run:
    """The stage for two nodes without rails, so that it goes no further than the check of the fabric."""
    hosts = dict(
        zip(NODES, ({"node": {"state": state()}}, {"node": {"state": state(**second)}}), strict=True)
    )
    facts = {"__dgx_vllm_node": "{{ node }}", "__dgx_vllm_fabric_read": {"fabric": {"rails": []}}}
    tasks: list[dict[str, Any]] = [{"name": "Facts", "ansible.builtin.set_fact": facts}]
    for stage in ("common/validate", "service/main"):
        role = {"name": "dgx_vllm.spark.dgx_vllm", "tasks_from": stage}
        tasks.append({"name": "Stage", "ansible.builtin.include_role": role})
    content = [{"hosts": "dgx_vllm", "gather_facts": False, "tasks": tasks}]
    (place / "play.yml").write_text(json.dumps(content), encoding="utf-8")
    given = {
        "dgx_vllm_model": "org/name",
        "dgx_vllm_replica": "chat",
        "dgx_vllm_tensor_parallel_size": 2,
        "dgx_vllm_fabric_prefix": "198.51.100.0/24",
        "dgx_vllm_image": "dgx-vllm:offline",
        "dgx_vllm_image_source": "load",
        "dgx_vllm_image_archive": "/srv/dgx-vllm.tar",
        **variables,
    }
    return play(place / "play.yml", inventory(place / "inventory", hosts, **given), home=place / "home")


@pytest.mark.parametrize("what", DIFFERENT)
def test_nodes_that_would_serve_something_else_are_refused(what: str, tmp_path: Path) -> None:
    run = service(tmp_path, {what: DIFFERENT[what]})
    for host in NODES:
        assert run.failure(host).startswith(f"{host}: same_{what}: ")
        assert all(f"on {node}" in run.failure(host) for node in NODES)


def test_equal_nodes_go_on(tmp_path: Path) -> None:
    assert "0 rails of the 2 planned" in service(tmp_path, {}).failure("spark2")


def test_a_difference_that_is_accepted_goes_on(tmp_path: Path) -> None:
    run = service(tmp_path, DIFFERENT, dgx_vllm_preflight_accept=["same_image", "same_model"])
    assert "0 rails of the 2 planned" in run.failure("spark2")


def test_weights_that_do_not_fit_stop_the_run_that_fetched_them(tmp_path: Path) -> None:
    """Class B: a fresh node could not tell in preflight, and the next run would stop there."""
    run = service(tmp_path, {"model": {"size_bytes": 230 * 10**9}}, dgx_vllm_kv_cache_memory_bytes=20 * 10**9)
    assert "memory: 18.6 GiB KV cache + 107.1 GiB weights, its part of 2" in run.failure("spark2")
    assert "memory" not in run.failure("spark1")
