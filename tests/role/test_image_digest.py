"""A tag is resolved once: every node that wants the image runs the digest that the registry gave the first of them."""

from __future__ import annotations

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
    used = {
        host: result["ansible_facts"]["__dgx_vllm_digest"]["reference"]
        for task, host, result in run.results()
        if task.endswith("Use one digest on every node")
    }
    assert used == dict.fromkeys(hosts, pinned)


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
