"""The role from a bare node to a bare node, in the order of the file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from conftest import OUT, Step
from server import (
    back_in_service,
    complete,
    failed,
    judged,
    markers,
    records,
    routed,
    told,
    verified,
)

from testlib.node import Node, Snapshot, differences, wait_until
from testlib.runs import Operator, Run

GARBAGE = "vllm-garbage:1"
BOOT = "systemctl show --property UserspaceTimestampMonotonic --value"
NOISE = ("server", "folders", "users")
"""Sections of a snapshot that an uninstallation does not bring back; testinfra and ssh write into some of them."""


@pytest.fixture(scope="module")
def memory() -> dict[str, str]:
    """What later steps need of earlier ones, also of those of an earlier run."""
    file = OUT / "memory.json"
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found


def remember(memory: dict[str, str], **values: str) -> None:
    memory.update(values)
    (OUT / "memory.json").write_text(json.dumps(memory), encoding="utf-8")


def ran(step: Step, run: Run) -> None:
    """What the report says about a run of a playbook."""
    step.facts["playbook_s"] = round(run.seconds, 1)
    step.facts["changed"] = run.counts.get("changed", 0)


@pytest.mark.step("The node: systemd, Docker, the GPU, nothing of the role", needs=20)
def test_bare_node(node: Node, step: Step) -> None:
    step.facts["docker"] = node.sh(
        "docker info --format '{{.ServerVersion}}, {{.Driver}}, {{.CgroupDriver}}, cgroup {{.CgroupVersion}}'"
    )
    step.facts["systemd"] = node.sh("systemctl --version | sed -n 1p")
    step.facts["gpu"] = node.sh("nvidia-smi -L | sed 's/ (UUID.*//'")
    step.facts["driver"] = node.sh("nvidia-smi --query-gpu=driver_version --format=csv,noheader | sed -n 1p")
    step.facts["toolkit"] = node.sh("nvidia-ctk --version | sed -n 1p")
    for place in ("/etc/dgx-vllm", "/var/lib/dgx-vllm"):
        assert not node.host.file(place).exists, (
            f"{place} is there: start with a node that the role has not seen"
        )
    (OUT / "bare.json").write_text(json.dumps(node.snapshot()), encoding="utf-8")


@pytest.mark.step("site.yml, first run", needs=240)
def test_first_run(operator: Operator, node: Node, step: Step, memory: dict[str, str]) -> None:
    run = operator.succeed()
    ran(step, run)
    remember(memory, first=node.current)
    step.show(
        node.log, r"\[vLLM SM_121\]", "Fp8 MoE backend", "MoE config", "Model loading took", "init engine"
    )


@pytest.mark.step("site.yml, second run: nothing changes", needs=40)
def test_second_run(operator: Operator, node: Node, step: Step) -> None:
    started = node.property("InvocationID")
    run = operator.succeed()
    ran(step, run)
    assert run.changed == []
    assert node.property("InvocationID") == started


@pytest.mark.step("verify.yml, and the role's own health check", needs=40)
def test_verify(operator: Operator, node: Node, step: Step) -> None:
    run = operator.succeed("playbooks/verify.yml")
    ran(step, run)
    assert run.changed == []
    result = verified(operator)
    step.facts["checks"] = judged(result)
    step.lines += [f"{row['status']} {row['check']}: {row['found']}"[:300] for row in result["checks"]]
    assert result["healthy"] and not failed(result)
    assert markers(node.log) == ["linear", "moe"]


@pytest.mark.step("What the patch recorded", needs=10)
def test_record(node: Node, step: Step) -> None:
    found = records(node)
    assert len(found) == 1, f"{len(found)} processes have a census"
    step.facts.update(told(found[0]))
    assert routed(found[0]) == ("linear", "moe")
    assert found[0]["errors"] == [] and found[0]["assumed"] is True


@pytest.mark.step("A completion, twice the same", needs=10)
def test_completion(node: Node, step: Step, memory: dict[str, str]) -> None:
    complete(node)
    start = time.monotonic()
    text = complete(node)["text"]
    step.facts["milliseconds"] = round((time.monotonic() - start) * 1000)
    step.facts["text"] = text
    assert text == complete(node)["text"]
    assert len(set(text.split())) > 4, "the tokens of real weights differ from each other"
    remember(memory, text=text)


@pytest.mark.step("The container is killed", needs=90)
def test_killed_container(node: Node, step: Step, memory: dict[str, str]) -> None:
    step.facts["back_s"] = back_in_service(node, lambda: node.sh("docker kill dgx-vllm"))
    assert complete(node)["text"] == memory["text"]


@pytest.mark.step("EngineCore is killed", needs=90)
def test_killed_engine(node: Node, step: Step, memory: dict[str, str]) -> None:
    step.facts["back_s"] = back_in_service(node, lambda: node.sh("pkill -KILL -f 'VLLM::Engine[C]ore'"))
    assert complete(node)["text"] == memory["text"]


@pytest.mark.step("The node restarts", needs=120)
def test_restarted_node(node: Node, step: Step, memory: dict[str, str]) -> None:
    boot = node.sh(BOOT)
    start = time.monotonic()
    node.sh("systemd-run -q --on-active=1 systemctl reboot --no-wall")
    time.sleep(5)

    def serves() -> bool:
        try:
            return node.sh(BOOT) != boot and complete(node, 4)["text"] != ""
        except (AssertionError, RuntimeError):  # no ssh, or no server yet
            return False

    wait_until(serves, "the node serves again", 240)
    step.facts["back_s"] = round(time.monotonic() - start, 1)
    step.facts["state"] = str(node.host.run("systemctl is-system-running").stdout).strip()
    assert complete(node)["text"] == memory["text"]


@pytest.mark.step("Both routes to auto", needs=120)
def test_auto(operator: Operator, node: Node, step: Step, memory: dict[str, str]) -> None:
    auto = {"fp8_linear": "auto", "fp8_moe": "auto"}
    ran(step, operator.succeed(**auto))
    result = verified(operator, **auto)
    step.facts["checks"] = judged(result)
    step.facts["same_text"] = complete(node)["text"] == memory["text"]
    step.show(node.log, "Fp8 MoE backend", "Kernel for", "MoE config")
    assert not failed(result)
    assert markers(node.log) == []
    assert node.release("previous") == memory["first"]


@pytest.mark.step("rollback.yml: the routes are back", needs=120)
def test_rollback(operator: Operator, node: Node, step: Step, memory: dict[str, str]) -> None:
    ran(step, operator.succeed("playbooks/rollback.yml"))
    assert node.current == memory["first"]
    assert markers(node.log) == ["linear", "moe"]
    assert complete(node)["text"] == memory["text"]


def comes_back(operator: Operator, node: Node, step: Step, memory: dict[str, str], **bad: object) -> None:
    """A run that must fail, and after which the good release serves."""
    good = node.current
    run = operator.fail(**bad)
    ran(step, run)
    step.lines.append(run.message[:600])
    assert f"Release {good} is back in service and healthy." in run.message
    assert node.current == good
    assert complete(node)["text"] == memory["text"]


@pytest.mark.step("A release that cannot start", needs=180)
def test_release_that_cannot_start(
    operator: Operator, node: Node, step: Step, memory: dict[str, str]
) -> None:
    comes_back(operator, node, step, memory, max_model_len=999999)


@pytest.mark.step("A release that answers garbage", needs=180)
def test_release_that_answers_garbage(
    operator: Operator, node: Node, step: Step, memory: dict[str, str]
) -> None:
    node.put("/var/tmp/garbage/vllm", (Path(__file__).parent / "garbage.py").read_text(encoding="utf-8"))
    place = 'RUN cp /garbage "$(command -v vllm)" && chmod 0755 "$(command -v vllm)"'
    node.put("/var/tmp/garbage/Dockerfile", f"FROM {os.environ['TRIAL_BASE']}\nCOPY vllm /garbage\n{place}\n")
    node.sh(f"docker build -q --network none -t {GARBAGE} /var/tmp/garbage")
    comes_back(operator, node, step, memory, image_build_base=GARBAGE)


@pytest.mark.step("uninstall.yml: the node is as it was", needs=60)
def test_uninstall(operator: Operator, node: Node, step: Step) -> None:
    ran(step, operator.succeed("playbooks/uninstall.yml"))
    node.sh(f"docker rmi -f {GARBAGE} >/dev/null 2>&1 || true; rm -rf /var/tmp/garbage")
    bare: Snapshot = json.loads((OUT / "bare.json").read_text(encoding="utf-8"))
    left = differences(bare, node.snapshot(), without=NOISE)
    step.lines += left[:20]
    assert not [line for line in left if not line.startswith("data: ")]
    assert node.property("LoadState") == "not-found"
