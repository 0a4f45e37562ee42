"""A tag is resolved once: every node that wants the image runs the digest that the registry gave the first of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import Run, inventory, play
from helpers.fake_registry import DIGEST, FakeRegistry

PLAY = """
- hosts: dgx_vllm
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: dgx_vllm
        tasks_from: image/digest
      when: dgx_vllm_state | default('present') == 'present'
"""


@pytest.fixture()
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def deploy(registry: FakeRegistry, folder: Path, hosts: dict[str, dict[str, Any]], tag: str) -> Run:
    playbook = folder / "play.yml"
    playbook.write_text(PLAY, encoding="utf-8")
    wanted = {"dgx_vllm_image": f"{registry.host}/team/image:{tag}", "dgx_vllm_image_source": "pull"}
    return play(playbook, inventory(folder / "inventory", hosts, **wanted), home=folder)


def test_tag_is_resolved_once_for_all_nodes_that_want_it(registry: FakeRegistry, tmp_path: Path) -> None:
    pinned = f"{registry.host}/team/image@{DIGEST}"
    hosts: dict[str, dict[str, Any]] = {"one": {}, "two": {}, "three": {"dgx_vllm_image": pinned}, "four": {}}
    run = deploy(registry, tmp_path, hosts, "0.33.0")
    assert run.rc == 0, [run.failure(host) for host in hosts]
    assert sum("/manifests/0.33.0" in path for _, path, _ in registry.seen) == 1
    assert references(run) == dict.fromkeys(hosts, pinned)


def test_tag_that_is_not_there_stops_every_node_with_a_sentence(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    run = deploy(registry, tmp_path, {"one": {}, "two": {}}, "0.99.0")
    assert run.rc == 2
    assert "its tags are 0.26.0" in run.failure("one")
    assert "could not be resolved for two" in run.failure("two")


def test_a_node_that_is_taken_away_is_not_the_one_that_asks(registry: FakeRegistry, tmp_path: Path) -> None:
    hosts: dict[str, dict[str, Any]] = {"one": {"dgx_vllm_state": "absent"}, "two": {}}
    run = deploy(registry, tmp_path, hosts, "0.33.0")
    assert run.failure("two") == ""


def test_a_node_that_lies_about_the_image_has_no_say_over_a_pinned_one(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    pinned = f"{registry.host}/team/image@{DIGEST}"
    hosts: dict[str, dict[str, Any]] = {"one": liar(tmp_path), "two": {}}
    for host in hosts:
        hosts[host]["dgx_vllm_image"] = pinned
    run = deploy(registry, tmp_path, hosts, "0.33.0")
    assert run.rc == 0, [run.failure(host) for host in hosts]
    assert references(run) == dict.fromkeys(hosts, pinned)


def test_a_node_that_lies_about_a_tag_cannot_name_another_image(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    hosts: dict[str, dict[str, Any]] = {"one": liar(tmp_path), "two": {}}
    run = deploy(registry, tmp_path, hosts, "0.33.0")
    assert references(run) == dict.fromkeys(hosts, f"{registry.host}/team/image@sha256:{'e' * 64}")


def liar(folder: Path) -> dict[str, Any]:
    """Variables of a node whose Python answers every module with an image of somebody else."""
    answer = {
        "changed": False,
        "digest": f"sha256:{'e' * 64}",
        "reference": f"registry.attacker.example/evil@sha256:{'e' * 64}",
    }
    python = folder / "python"
    python.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{json.dumps(answer)}'\n", encoding="utf-8")
    python.chmod(0o755)
    return {"ansible_python_interpreter": str(python)}


def references(run: Run) -> dict[str, str]:
    """What each node would pull."""
    return {
        host: result["ansible_facts"]["__dgx_vllm_pinned_image"]
        for task, host, result in run.results()
        if task.endswith("Use one digest on every node")
    }
