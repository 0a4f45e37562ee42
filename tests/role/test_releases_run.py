"""The stages that put releases into service and back, run on this machine; systemd and the server are stubs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import Run
from helpers.releases import health, node, on_disk, plan, systemctl
from helpers.stages import Stages

PAIR = ["head", "worker"]


def pointers(stages: Stages, host: str) -> tuple[str, str]:
    return stages.node(host, "etc/current").readlink().name, stages.node(host, "etc/previous").readlink().name


def test_verify_alone_accepts_the_installed_release(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    stages.stub("health", health(True))
    systemctl(stages, enabled=False)
    on_disk(stages, "one")
    run = stages.run("verify", {"one": node(release="r1")}, __dgx_vllm_plan=plan("one"))
    assert run.rc == 0, run.failure("one")
    assert pointers(stages, "one") == ("r1", "r2")
    assert "systemctl enable dgx-vllm.service" in stages.calls, "only now it starts at boot"


def test_a_server_of_another_release_is_not_accepted(tmp_path: Path) -> None:
    """B5: an interrupted run installed r1, and the healthy server is still that of r2."""
    stages = Stages(tmp_path)
    found = health(True)
    found["ansible.builtin.set_fact"]["__dgx_vllm_health"]["release"] = "r2"
    stages.stub("health", found)
    systemctl(stages, enabled=False)
    on_disk(stages, "one")
    run = verified(stages, current="r2")
    assert pointers(stages, "one") == ("r2", "r1")
    assert run.failure("one").startswith(
        "one is served by release r2, and r1 is installed: an earlier run was"
    )


def test_a_first_release_that_was_not_healthy_in_time_is_said_not_to_start_at_boot(tmp_path: Path) -> None:
    """B5: it may become healthy after the run's timeout, and would be missed only after the next reboot."""
    stages = Stages(tmp_path)
    stages.stub("health", health(False))
    on_disk(stages, "one")
    run = verified(stages, current=None)
    assert run.failure("one") == (
        "one: no token Until a run has found it healthy, a boot does not start this release: if it serves later, run "
        "site.yml with the tag verify."
    )


@pytest.mark.parametrize(("rolled_out", "returns"), [({}, False), ({"__dgx_vllm_release": "r3"}, True)])
def test_only_a_run_with_a_new_release_returns_to_the_previous_one(
    rolled_out: Mapping[str, str], returns: bool, tmp_path: Path
) -> None:
    stages = Stages(tmp_path, "verify/rollback")
    stages.stub("health", health(False, **rolled_out))
    on_disk(stages, "one")
    run = stages.run("verify", {"one": node()}, __dgx_vllm_plan=plan("one"))
    assert run.rc == 0, run.failure("one")
    assert ("one verify/rollback" in stages.calls) == returns
    assert pointers(stages, "one") == ("r2", "r1")


def rollback(place: Path, head: bool, worker: bool, **of_worker: Any) -> tuple[Stages, list[str]]:
    """Roll back a pair whose previous release is healthy or not on each node; the last failure of each node."""
    stages = Stages(place, "common/validate", "common/state")
    stages.stub("service/activate")
    activate = stages.tasks / "service/activate.yml"
    activate.write_text(activate.read_text().replace("service/activate", "{{ __dgx_vllm_target }}"))
    found = health(True, "__dgx_vllm_health_of_old")["ansible.builtin.set_fact"]["__dgx_vllm_health_of_old"]
    found["healthy"] = "{{ serves or __dgx_vllm_target == 'r2' }}"
    stages.stub("verify/installed", {"ansible.builtin.set_fact": {"__dgx_vllm_health_of_old": found}})
    on_disk(stages, *PAIR)
    hosts = {"head": {**node(), "serves": head}, "worker": {**node(**of_worker), "serves": worker}}
    run = stages.run("rollback", hosts, __dgx_vllm_plan=plan(*PAIR))
    failed = [(host, str(found["msg"])) for _, host, found in run.results() if found.get("failed")]
    return stages, [dict(failed).get(host, "") for host in PAIR]


def test_a_replica_rolls_back(tmp_path: Path) -> None:
    stages, messages = rollback(tmp_path, head=True, worker=True)
    assert messages == ["", ""]
    assert [pointers(stages, host) for host in PAIR] == [("r1", "r2")] * 2


@pytest.mark.parametrize("bad", PAIR)
def test_m17_the_current_release_serves_again_where_the_previous_one_does_not(
    bad: str, tmp_path: Path
) -> None:
    stages, messages = rollback(tmp_path, head=bad != "head", worker=bad != "worker")
    assert messages == [f"{bad}: fine Release r2 is back in service and healthy."] * 2
    assert [pointers(stages, host) for host in PAIR] == [("r2", "r1")] * 2
    activated = [call for call in stages.calls if call.split()[1] in ("r1", "r2")]
    assert sorted(activated[:2]) == ["head r1", "worker r1"]
    assert sorted(activated[2:]) == ["head r2", "worker r2"]


def test_m17_a_release_that_did_not_run_before_is_not_put_back(tmp_path: Path) -> None:
    dead = {"release": "r2", "exists": True, "active_state": "failed", "enabled": True}
    stages, messages = rollback(tmp_path, head=True, worker=False, service=dead)
    sentence = "worker: fine Release r1 stays, because the current release did not run on all nodes before."
    assert messages == [sentence] * 2
    assert "head r2" not in stages.calls


def test_no_node_of_a_replica_restarts_where_one_has_nothing_to_return_to(tmp_path: Path) -> None:
    stages, messages = rollback(tmp_path, head=True, worker=True, previous=None)
    sentence = "worker has no previous release (current: r2), so there is nothing to return to."
    assert messages == [sentence] * 2
    assert not [call for call in stages.calls if call.split()[1] in ("r1", "r2")]


def verified(stages: Stages, current: str | None) -> Run:
    """verify and assert_healthy on a node with the release r1 installed."""
    both = [
        {"name": name, "ansible.builtin.include_tasks": f"{name}.yml"}
        for name in ("verify", "assert_healthy")
    ]
    (stages.tasks / "both.yml").write_text(json.dumps(both), encoding="utf-8")
    given = {"one": node(release="r1", current=current, previous=None)}
    return stages.run("both", given, __dgx_vllm_plan=plan("one"))
