"""The node leaves service to be tuned and comes back with the file; only the tuner's timings are simulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testlib.node import Node
from testlib.runs import Operator

FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
TUNED = "/var/lib/dgx-vllm/tuned"
TUNING = "/var/lib/dgx-vllm/tuning"
SERVER = {"max_num_seqs": 32}
# Other scenarios may run on the test machine at the same time, and then 64 tokens take a minute.
TUNE = {**SERVER, "tuned_config_dir": TUNED, "tune_budget": 60, "completion_timeout": 300}


@pytest.fixture(scope="module", autouse=True)
def deployed(operator: Operator, node: Node) -> None:
    """A server as site.yml leaves it; on a bare machine it is deployed."""
    operator.succeed(**SERVER)


def results(node: Node) -> str:
    """The folder of the tuner's results."""
    (name,) = node.host.file(TUNING).listdir()
    return f"{TUNING}/{name}"


def fetched(operator: Operator) -> Path:
    return operator.folder / "reports/tuning/spark1"


def test_refused_before_the_server_is_stopped(operator: Operator, node: Node) -> None:
    started = node.property("InvocationID")
    run = operator.fail("playbooks/tune.yml", **SERVER)
    assert (
        "spark1 cannot be tuned: dgx_vllm_tuned_config_dir is empty; set it in the inventory" in run.message
    )
    assert node.property("InvocationID") == started


def test_tuned_and_back_in_service(operator: Operator, node: Node) -> None:
    before = node.current
    run = operator.start("playbooks/tune.yml", **TUNE)
    # The plan is made before, by a container of the same name.
    node.wait_for(
        "docker inspect dgx-vllm-tune --format '{{.Args}}' | grep -v -e --plan | grep -q -e --output", 600
    )
    assert node.property("ActiveState") == "inactive", "the server must be stopped while its GPU is measured"
    box = node.host.docker("dgx-vllm-tune").inspect()["HostConfig"]
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
    assert node.text(f"{TUNED}/{FILE}") == (fetched(operator) / FILE).read_text().strip()
    assert f"Using configuration from /tuned/{FILE} for MoE layer" in node.log
    run = operator.succeed("playbooks/verify.yml", **TUNE)
    assert f"moe_config_loaded      /tuned/{FILE}" in run.output
    speed = json.loads((fetched(operator) / "speed.json").read_text())
    assert {len(runs) for side in speed.values() for runs in side.values()} == {5}


def test_second_run_continues_where_the_first_one_ended(operator: Operator, node: Node) -> None:
    state = f"{results(node)}/state.json"
    before, file = node.host.file(state).sha256sum, node.host.file(f"{TUNED}/{FILE}").sha256sum
    operator.succeed("playbooks/tune.yml", **TUNE)
    assert node.host.file(state).sha256sum == before, "nothing is measured twice"
    assert node.host.file(f"{TUNED}/{FILE}").sha256sum == file
    assert node.completes()


def test_back_in_service_when_the_tuner_fails(operator: Operator, node: Node) -> None:
    release, file = node.current, node.host.file(f"{TUNED}/{FILE}").sha256sum
    node.put(f"{results(node)}/state.json", "{")
    run = operator.fail("playbooks/tune.yml", **TUNE)
    assert "spark1 was not tuned: " in run.message
    assert "state.json cannot be read" in run.message and "remove it to start again" in run.message
    assert "The server is back in service and healthy." in run.message
    assert node.property("ActiveState") == "active" and node.completes()
    assert (node.current, node.host.file(f"{TUNED}/{FILE}").sha256sum) == (release, file)


def test_uninstall_removes_the_results(operator: Operator, node: Node) -> None:
    operator.succeed("playbooks/uninstall.yml", **TUNE)
    assert not node.host.file(TUNED).exists
    assert not node.host.file(TUNING).exists
