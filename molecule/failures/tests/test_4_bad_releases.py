"""Releases that start and are not healthy: each is detected, and the previous release is put back into service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from testlib.node import UNIT, Node
from testlib.runs import Operator

REGISTRY = "registry.testbed.test:5000"
CONFIG = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"


@dataclass(frozen=True)
class BadRelease:
    """Variables that make a release that is not healthy, and the parts of the message about it."""

    message: tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)


BAD = {
    "unpatched image": BadRelease(
        ("manifest: the image has no readable patch manifest",
         "Build or pull an image whose manifest says patched or upstream"),
        {"image": f"{REGISTRY}/dgx-vllm:unpatched"},
    ),
    "MoE config missing": BadRelease(
        (f"moe_config_file: the image lacks {CONFIG} in", f"moe_config_loaded: the image ships {CONFIG}"),
        {"image": f"{REGISTRY}/dgx-vllm:no-moe-config"},
    ),
    "vLLM that is changed after the patch": BadRelease(
        ("record: no process in the container has a record, although the image's manifest promises one",
         "its vLLM was changed after the patch"),
        {"image": f"{REGISTRY}/dgx-vllm:bypassed"},
    ),
    "MoE config that is required and that nobody has": BadRelease(
        ("moe_config_loaded: E=96,N=320,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json is not there",
         "playbooks/tune.yml", "or set dgx_vllm_moe_config_required to false"),
        {"model": "testbed/other-shape-fp8", "moe_config_required": True},
    ),
    "model that cannot load": BadRelease(
        (f"{UNIT} failed", "This vLLM does not know the model's architecture", "Use a newer image, or a model from"),
        # With a new key: the previous release is queried with its own.
        {"model": "testbed/unloadable", "api_key": "new-api-key-for-tests-only"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_previous_release_comes_back(operator: Operator, node: Node, case: BadRelease) -> None:
    good, unit = node.current, node.host.file(f"/etc/systemd/system/{UNIT}").sha256sum
    run = operator.fail(**case.variables)
    missing = [part for part in case.message if part not in run.message]
    assert not missing, f"the message lacks {missing}: {run.message}"
    assert f"Release {good} is back in service and healthy." in run.message
    assert node.current == good
    assert node.host.file(f"/etc/systemd/system/{UNIT}").sha256sum == unit
    assert node.completes()


def test_corrected_run_keeps_the_server(operator: Operator, node: Node) -> None:
    """It only records the health of the server that the rollback started; the next run changes nothing."""
    invocation = node.property("InvocationID")
    operator.succeed()
    assert operator.succeed().counts["changed"] == 0
    assert node.property("InvocationID") == invocation
    assert node.completes()
