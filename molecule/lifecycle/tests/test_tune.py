"""The node leaves service to be tuned and comes back with the file; nothing but the tuner's timings stands in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from node import Node
from runs import Operator

FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
TUNED = "/var/lib/dgx-vllm/tuned"
SERVER = {"max_num_seqs": 32}
# The machine under test may have other scenarios beside this one, and 64 tokens then take a minute.
TUNE = {**SERVER, "tuned_config_dir": TUNED, "tune_budget": 60, "completion_timeout": 300}


@pytest.fixture(scope="module", autouse=True)
def deployed(operator: Operator, node: Node) -> None:
    """A server as site.yml leaves it; where the machine is bare it is made."""
    operator.succeed(**SERVER)


def results(node: Node) -> str:
    return node.sh("ls -d /var/lib/dgx-vllm/tuning/*")


def fetched(operator: Operator) -> Path:
    return operator.folder / "reports/tuning/spark1"


def test_refused_before_anything_is_stopped(operator: Operator, node: Node) -> None:
    started = node.property("InvocationID")
    run = operator.fail("playbooks/tune.yml", **SERVER)
    assert (
        "spark1 cannot be tuned: dgx_vllm_tuned_config_dir is empty; set it in the inventory" in run.message
    )
    assert node.property("InvocationID") == started


def test_tuned_and_back_in_service(operator: Operator, node: Node) -> None:
    before = node.current
    run = operator.start("playbooks/tune.yml", **TUNE)
    # A container of the same name makes the plan before.
    node.wait_for(
        "docker inspect dgx-vllm-tune --format '{{.Args}}' | grep -v -e --plan | grep -q -e --output", 600
    )
    assert node.property("ActiveState") == "inactive", "the server must be stopped while its GPU is measured"
    box = json.loads(node.sh("docker inspect dgx-vllm-tune"))[0]["HostConfig"]
    assert (box["Privileged"], box["CapDrop"], box["NetworkMode"]) == (False, ["ALL"], "none")
    assert any(bind.endswith(":/models:ro") for bind in box["Binds"])
    done = run.wait()
    assert done.status == 0, f"{done.message}\n{done.tail}"
    assert node.property("ActiveState") == "active" and node.completes()
    assert node.current != before, "the release says where its MoE configs are"
    for batch in (1, 8, 32):
        assert f"batch {batch}: " in done.output
    assert "configurations timed of 34560 by brute force" in done.output


def test_file_is_fetched_installed_and_loaded(operator: Operator, node: Node) -> None:
    names = {path.name for path in fetched(operator).iterdir()}
    assert names == {FILE, "timings.json", "tuned.svg", "speed.json"}
    assert node.sh(f"cat '{TUNED}/{FILE}'") == (fetched(operator) / FILE).read_text().strip()
    assert f"Using configuration from /tuned/{FILE} for MoE layer" in node.sh("docker logs dgx-vllm 2>&1")
    run = operator.succeed("playbooks/verify.yml", **TUNE)
    assert f"moe_config_loaded      /tuned/{FILE}" in run.output
    speed = json.loads((fetched(operator) / "speed.json").read_text())
    assert {len(runs) for side in speed.values() for runs in side.values()} == {5}


def test_second_run_goes_on_where_the_first_one_ended(operator: Operator, node: Node) -> None:
    state = f"{results(node)}/state.json"
    before, file = node.sh(f"sha256sum {state}"), node.sh(f"sha256sum '{TUNED}/{FILE}'")
    operator.succeed("playbooks/tune.yml", **TUNE)
    assert node.sh(f"sha256sum {state}") == before, "nothing is measured twice"
    assert node.sh(f"sha256sum '{TUNED}/{FILE}'") == file
    assert node.completes()


def test_back_in_service_when_the_tuner_fails(operator: Operator, node: Node) -> None:
    release, file = node.current, node.sh(f"sha256sum '{TUNED}/{FILE}'")
    node.put(f"{results(node)}/state.json", "{")
    run = operator.fail("playbooks/tune.yml", **TUNE)
    assert "spark1 was not tuned: " in run.message
    assert "state.json cannot be read" in run.message and "remove it to start again" in run.message
    assert "The server is back in service and healthy." in run.message
    assert node.property("ActiveState") == "active" and node.completes()
    assert (node.current, node.sh(f"sha256sum '{TUNED}/{FILE}'")) == (release, file)


def test_uninstall_takes_the_results_away(operator: Operator, node: Node) -> None:
    operator.succeed("playbooks/uninstall.yml", **TUNE)
    assert node.host.run(f"ls {TUNED} /var/lib/dgx-vllm/tuning").rc != 0
