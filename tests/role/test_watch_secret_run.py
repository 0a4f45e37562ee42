"""M4: the secret of a replica, made by the role's real tasks on this machine; restarts are stubbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import service

from helpers.ansible_run import Run
from helpers.releases import node, plan
from helpers.stages import Stages

HOSTS = ("one", "two", "three")


def stages_at(place: Path) -> Stages:
    return Stages(place, "service/watch_code", "common/state")


def state_of(stages: Stages, host: str) -> dict[str, Any]:
    """What dgx_vllm_state says of the host's watch."""
    config = stages.node(host, "etc")
    return service.watch(stages.place, lambda *_: Completed(0, "", ""), "dgx-vllm-watch.service", config)


def run(stages: Stages, *members: str, replica: str = "chat", words: tuple[str, ...] = ()) -> Run:
    planned = plan(*members)
    for row in planned["hosts"].values():
        row["replica"] = replica
    hosts = {}
    for host in members:
        stages.node(host, "etc/releases/r2").mkdir(parents=True, exist_ok=True)
        hosts[host] = {**node(watch={**state_of(stages, host), "release": "r2"}), "__dgx_vllm_target": "r2"}
    return stages.run("service/watch", hosts, "--diff", *words, __dgx_vllm_plan=planned)


def secret(stages: Stages, host: str) -> str:
    return stages.node(host, "etc/watch.secret").read_text(encoding="utf-8")


def shown(done: Run) -> str:
    """All that the operator sees."""
    return json.dumps(done.out) + done.err


def changed(done: Run) -> list[tuple[str, str]]:
    return [(host, task) for task, host, result in done.results() if result.get("changed")]


def one_secret(stages: Stages, *members: str) -> str:
    """The one that all members have, in a file that only root reads."""
    (text,) = {secret(stages, host) for host in members}
    assert {stages.node(host, "etc/watch.secret").stat().st_mode & 0o777 for host in members} == {0o600}
    return text


def test_all_nodes_of_a_replica_get_one_secret_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    stages = stages_at(tmp_path)
    done = run(stages, "one", "two")
    assert done.rc == 0, done.failure("one")
    text = one_secret(stages, "one", "two")
    name, word = text.split()
    assert name == "chat"
    assert len(word) == 64
    assert word not in shown(done)
    again = run(stages, "one", "two")
    assert again.rc == 0
    assert not [task for _, task in changed(again) if "Note service" not in task]
    ran = [task for task, _, result in again.results() if "secret" in task and not result.get("skipped")]
    assert ran == [], "it costs nothing"
    assert one_secret(stages, "one", "two") == text


def test_a_second_operator_and_a_node_that_joins_keep_the_secret(tmp_path: Path) -> None:
    """Nothing of it is on an operator's machine; the new node is even the first one by rank."""
    stages = stages_at(tmp_path)
    run(stages, "two", "three")
    text = one_secret(stages, "two", "three")
    done = run(stages, "one", "two", "three")
    assert done.rc == 0, done.failure("one")
    assert one_secret(stages, *HOSTS) == text
    assert text.split()[1] not in shown(done)


@pytest.mark.parametrize("damage", ["gone", "empty", "zeros", "readable", "another"])
def test_a_node_whose_secret_is_damaged_gets_it_again(damage: str, tmp_path: Path) -> None:
    stages = stages_at(tmp_path)
    run(stages, "one", "two")
    text = one_secret(stages, "one", "two")
    file = stages.node("two" if damage == "another" else "one", "etc/watch.secret")
    if damage == "gone":
        file.unlink()
    elif damage == "readable":
        file.chmod(0o644)
    else:
        file.write_text(
            {"empty": "", "zeros": "\0" * 70, "another": f"chat {'0' * 64}\n"}[damage], encoding="utf-8"
        )
    assert run(stages, "one", "two").rc == 0
    assert one_secret(stages, "one", "two") == text


def test_a_node_of_another_replica_does_not_bring_its_secret(tmp_path: Path) -> None:
    stages = stages_at(tmp_path)
    run(stages, "one", "two", replica="chat")
    old = one_secret(stages, "one", "two")
    run(stages, "two", "three", replica="code")
    new = one_secret(stages, "two", "three")
    assert new.split()[0] == "code"
    assert new.split()[1] != old.split()[1]


def test_check_mode_says_what_it_would_do_and_shows_nothing(tmp_path: Path) -> None:
    stages = stages_at(tmp_path)
    done = run(stages, "one", "two", words=("--check",))
    assert done.rc == 0, done.failure("one")
    assert [host for host, task in changed(done) if task.endswith("Write the secret of the replica")] == [
        "one",
        "two",
    ]
    assert not stages.node("one", "etc/watch.secret").exists()


def test_activating_twice_in_one_run_makes_one_secret(tmp_path: Path) -> None:
    """As when a run returns to the release before: what was read of the nodes is older than the secret."""
    stages = stages_at(tmp_path)
    copies = "cp {{ __dgx_vllm_config_dir }}/watch.secret {{ __dgx_vllm_config_dir }}/first"
    step = {"ansible.builtin.include_tasks": "service/watch.yml"}
    twice = [step, {"ansible.builtin.command": copies, "changed_when": False}, step]
    (stages.tasks / "twice.yml").write_text(json.dumps(twice), encoding="utf-8")
    planned = plan("one", "two")
    hosts = {}
    for host in ("one", "two"):
        stages.node(host, "etc/releases/r2").mkdir(parents=True)
        hosts[host] = {**node(watch={**state_of(stages, host), "release": "r2"}), "__dgx_vllm_target": "r2"}
    done = stages.run("twice", hosts, __dgx_vllm_plan=planned)
    assert done.rc == 0, done.failure("one")
    assert one_secret(stages, "one", "two") == stages.node("one", "etc/first").read_text(encoding="utf-8")


def test_a_secret_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    stages = stages_at(tmp_path)
    run(stages, "one", "two")
    known = state_of(stages, "one")
    stages.node("two", "etc/watch.secret").unlink()
    hosts = {
        "one": {**node(watch={**known, "release": "r2"}), "__dgx_vllm_target": "r2"},
        "two": {**node(watch={**state_of(stages, "two"), "release": "r2"}), "__dgx_vllm_target": "r2"},
    }
    stages.node("one", "etc/watch.secret").unlink()
    done = stages.run("service/watch", hosts, __dgx_vllm_plan=plan("one", "two"))
    assert done.rc != 0
    assert "one has the secret of the replica chat and failed earlier in this run" in done.failure("two")
