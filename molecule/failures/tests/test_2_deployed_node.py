"""A node that serves: what is refused while the server keeps running undisturbed."""

from __future__ import annotations

import pytest
from refusal import Refusal, refused

from testlib.node import HUB_TOKEN, Node, differences
from testlib.runs import Operator

REGISTRY = "registry.testbed.test:5000"
ABSENT = "sha256:" + "1" * 64
DAEMON = "/etc/docker/daemon.json"

REFUSALS = {
    "wrong registry password": Refusal(
        (f"{REGISTRY} does not give access to {REGISTRY}/dgx-vllm:sim (401)",
         "the registry refused this user name and password; check dgx_vllm_registry_username and dgx_vllm_reg"),
        {"registry_password": "a-wrong-word-for-tests"},
    ),
    "digest not found": Refusal(
        (f"{REGISTRY} has no {REGISTRY}/dgx-vllm@{ABSENT}; its tags are ",),
        {"image": f"{REGISTRY}/dgx-vllm@{ABSENT}"},
    ),
    "tag not found": Refusal(
        (f"{REGISTRY} has no {REGISTRY}/dgx-vllm:nightly; its tags are ", "unpatched"),
        {"image": f"{REGISTRY}/dgx-vllm:nightly"},
    ),
    "registry unreachable": Refusal(
        ("The registry registry.testbed.test:5999 cannot be reached", "Connection refused",
         "check its name and port and the network"),
        {"image": "registry.testbed.test:5999/dgx-vllm:sim"},
    ),
    "gated model without a token": Refusal(
        ("testbed/gated-moe-fp8 is gated and no token is given: accept its licence and set dgx_vllm_hf_token",),
        {"model": "testbed/gated-moe-fp8"},
    ),
    "gated model with a wrong token": Refusal(
        ("The hub refused the token (401", "put a valid one into dgx_vllm_hf_token"),
        {"model": "testbed/gated-moe-fp8", "hf_token": "hf_aWrongTokenForTests00000000000000000"},
    ),
    "model that the hub does not know": Refusal(
        ("The hub does not know the model testbed/tiny-moe-fp9", "check the spelling of dgx_vllm_model"),
        {"model": "testbed/tiny-moe-fp9", "hf_token": HUB_TOKEN},
    ),
    "revision that the model does not have": Refusal(
        ("testbed/tiny-moe-fp8 has no revision v9: correct dgx_vllm_model_revision",),
        {"model_revision": "v9"},
    ),
    "hub unreachable": Refusal(
        ("127.0.0.1:9 could not be reached", "Connection refused", "set dgx_vllm_hf_endpoint to a mirror"),
        {"model": "testbed/dense-bf16", "hf_endpoint": "http://127.0.0.1:9"},
    ),
    "model folder that does not exist": Refusal(
        ("/srv/no-model on spark1 is not a model folder (it has no config.json",),
        {"model": "/srv/no-model"},
    ),
    "disk too small for the model": Refusal(
        ("The disk of /mnt/models has", "free and testbed/tiny-moe-fp8 needs",
         "set dgx_vllm_models_dir to a larger disk"),
        {"models_dir": "/mnt/models", "min_free_models_gib": 0},
        breaks="mount -t tmpfs -o size=200k tmpfs /mnt",
        restores="umount /mnt",
    ),
    # There are free bytes but too few inodes, so that the disk is full only while the model is written.
    "disk full during the download": Refusal(
        ("Fetching testbed/tiny-moe-fp8 failed", "A disk is full", "Free space in the models directory"),
        {"models_dir": "/mnt/models", "min_free_models_gib": 0},
        breaks="mount -t tmpfs -o size=64m,nr_inodes=14 tmpfs /mnt",
        restores="umount /mnt",
    ),
    "daemon.json that is not valid JSON": Refusal(
        ("spark1: docker: /etc/docker/daemon.json.", "is not valid JSON",
         "correct or move the file; the role has not changed it"),
        breaks=f"cp -p {DAEMON} /run/daemon.json; printf '{{\"runtimes\": ' > {DAEMON}",
        restores=f"cp -p /run/daemon.json {DAEMON}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_and_the_server_keeps_running(operator: Operator, node: Node, case: Refusal) -> None:
    refused(operator, node, case)


def test_corrected_run_changes_nothing(operator: Operator, node: Node) -> None:
    before = node.snapshot()
    run = operator.succeed()
    assert run.counts["changed"] == 0
    assert not differences(before, node.snapshot())
    assert node.completes()
