"""The tuner through the role: deploy, measure on the GPU, load the file, and leave the node as it was."""

from __future__ import annotations

import json
import os

import pytest
from conftest import Step
from server import complete, failed, judged, verified

from testlib.node import Node
from testlib.runs import Operator

TUNED = "/var/lib/dgx-vllm/tuned"
TUNE = {"tuned_config_dir": TUNED, "tune_budget": int(os.environ.get("TRIAL_TUNE_BUDGET", "60"))}
NEEDS = 260 + int(TUNE["tune_budget"])


@pytest.mark.step("tune.yml, on a server that is deployed for it", needs=NEEDS)
def test_tune(operator: Operator, node: Node, step: Step) -> None:
    node.sh("docker rm -f $(docker ps -aq) >/dev/null 2>&1 || true")
    operator.succeed(**TUNE)
    run = operator.succeed("playbooks/tune.yml", **TUNE)
    step.facts["playbook_s"] = round(run.seconds, 1)
    step.show(run.output, "configurations timed", r"batch \d+: ")
    folder = operator.folder / "reports/tuning/spark1"
    step.facts["files"] = sorted(path.name for path in folder.iterdir())
    if (folder / "speed.json").exists():
        step.facts["speed"] = json.loads((folder / "speed.json").read_text(encoding="utf-8"))
    (name,) = (path.name for path in folder.glob("E=*.json"))
    assert f"Using configuration from /tuned/{name}" in node.log
    result = verified(operator, **TUNE)
    step.facts["checks"] = judged(result)
    assert not failed(result)
    complete(node)


@pytest.mark.step("uninstall.yml again", needs=60)
def test_uninstall(operator: Operator, node: Node, step: Step) -> None:
    if node.property("LoadState") == "not-found":
        pytest.skip("nothing is deployed")
    run = operator.succeed("playbooks/uninstall.yml", **TUNE)
    step.facts["playbook_s"] = round(run.seconds, 1)
    assert node.property("LoadState") == "not-found"
