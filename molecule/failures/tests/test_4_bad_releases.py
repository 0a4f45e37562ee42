"""Releases that start and are not healthy: each is found out, and the release before is put back into service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from node import UNIT, Node
from runs import Operator

REGISTRY = "registry.testbed.test:5000"
CONFIG = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"


@dataclass(frozen=True)
class BadRelease:
    """Variables that make a release that is not healthy, and the parts of the sentence about it."""

    sentence: tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)


BAD = {
    "unpatched image": BadRelease(
        ("manifest:", "markers: the log lacks: [vLLM SM_121] Detected GB10 (SM_121) - using",
         "Build or pull an image whose manifest says patched or upstream"),
        {"image": f"{REGISTRY}/dgx-vllm:unpatched"},
    ),
    "MoE config missing": BadRelease(
        (f"moe_config_file: {CONFIG} is in none of", "moe_config_loaded:", "no_default_moe_config:",
         f"put {CONFIG} into dgx_vllm_tuned_config_dir"),
        {"image": f"{REGISTRY}/dgx-vllm:no-moe-config"},
    ),
    "MoE config for another shape": BadRelease(
        ("moe_config_file: E=96,N=320,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json is in none of",
         "for other shapes there is E=", CONFIG, "or set dgx_vllm_moe_config_required to false"),
        {"model": "testbed/other-shape-fp8"},
    ),
    "model that cannot load": BadRelease(
        (f"{UNIT} failed", "This vLLM does not know the model's architecture", "Use a newer image, or a model that"),
        # With a new key: the release that comes back is asked with the one it has.
        {"model": "testbed/unloadable", "api_key": "new-api-key-for-tests-only"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_release_before_comes_back(operator: Operator, node: Node, case: BadRelease) -> None:
    good, unit = node.current, node.sh(f"sha256sum /etc/systemd/system/{UNIT}")
    run = operator.fail(**case.variables)
    missing = [part for part in case.sentence if part not in run.message]
    assert not missing, f"the message lacks {missing}: {run.message}"
    assert f"Release {good} is back in service and healthy." in run.message
    assert node.current == good
    assert node.sh(f"sha256sum /etc/systemd/system/{UNIT}") == unit
    assert node.completes()


def test_corrected_run_keeps_the_server(operator: Operator, node: Node) -> None:
    """It only records what it found about the run that the rollback began; the run after it changes nothing."""
    invocation = node.property("InvocationID")
    operator.succeed()
    assert operator.succeed().counts["changed"] == 0
    assert node.property("InvocationID") == invocation
    assert node.completes()
