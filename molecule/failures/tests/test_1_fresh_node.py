"""A node without Docker: what the role refuses before it changes anything, and installations that fail.

In the order of the file; the last test is the corrected run, which repairs the node whatever the others left.
"""

from __future__ import annotations

import pytest
from refusal import Refusal, refused

from testlib.node import HUB_TOKEN, Node, differences, watching
from testlib.runs import Operator

GPU = "/etc/sim-gpu.conf"
COMMANDS = (
    "docker pull",
    "docker login",
    "hf download testbed/tiny",
    "docker run --rm --name=dgx-vllm",
    "vllm serve",
)
TOOLKIT = (
    "libnvidia-container1", "libnvidia-container-tools", "nvidia-container-toolkit-base", "nvidia-container-toolkit",
)  # fmt: skip
LISTENER = "python3 -m http.server --directory /var/empty 8000"


REFUSALS = {
    "unknown variable": Refusal(
        ("dgx_vllm_ports is not a variable of this role, did you mean dgx_vllm_port?",),
        {"ports": 8001},
    ),
    "string where a boolean belongs": Refusal(
        ("dgx_vllm_service_enabled", "'maybe' is not a valid boolean", "'yes'"),
        given={"dgx_vllm_service_enabled": "maybe"},
    ),
    "value that makes no sense": Refusal(
        ("dgx_vllm_gpu_memory_utilization is 0.97; set it above 0 and to at most 0.9, because a GB10",),
        {"gpu_memory_utilization": 0.97},
    ),
    "not a GB10": Refusal(
        ("spark1: gpu: NVIDIA L40S (capability 8.9).", "does not show an NVIDIA GB10 with compute capability 12.1",
         "remove this host from the inventory group"),
        breaks=f"sed -i.testbed -e 's/^NAME=.*/NAME=NVIDIA L40S/' -e 's/^COMPUTE_CAP=.*/COMPUTE_CAP=8.9/' {GPU}",
        restores=f"mv {GPU}.testbed {GPU}",
    ),
    "no driver": Refusal(
        ("spark1: gpu: no GPU.", "couldn't communicate with the NVIDIA driver", "install this system's NVIDIA driver"),
        breaks=f"sed -i.testbed 's/^DEVICES=.*/DEVICES=0/' {GPU}; /usr/local/sbin/sim-gpu-nodes",
        restores=f"mv {GPU}.testbed {GPU}; /usr/local/sbin/sim-gpu-nodes",
    ),
    "driver on the deny list": Refusal(
        ("spark1: driver: 590.44.01.", "dgx_vllm_driver_denied contains 590.*",
         "install a driver that is not on the list"),
        breaks=f"sed -i.testbed 's/^DRIVER=.*/DRIVER=590.44.01/' {GPU}",
        restores=f"mv {GPU}.testbed {GPU}",
    ),
    "disk full": Refusal(
        ("spark1: disk_models:", "free on /mnt.", "free space on /mnt",
         "the model needs 1.0 GiB at /mnt/models (dgx_vllm_min_free_models_gib)"),
        {"models_dir": "/mnt/models"},
        breaks="mount -t tmpfs -o size=1m tmpfs /mnt",
        restores="umount /mnt",
    ),
    "port taken": Refusal(
        ("spark1: port: 8000 used by python3 (pid", "web.service)", "the server cannot listen on its port",
         "free it (systemctl stop web.service) or set dgx_vllm_port"),
        breaks=f"systemd-run -q --unit web {LISTENER}; until curl -so /dev/null 127.0.0.1:8000; do sleep 0.2; done",
        restores="systemctl stop web.service",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_before_any_change(operator: Operator, node: Node, case: Refusal) -> None:
    run = refused(operator, node, case)
    assert run.counts["changed"] == 0


def test_docker_version_that_no_repository_has(operator: Operator, node: Node) -> None:
    before = node.snapshot()
    run = operator.fail(docker_version="99.0-1")
    assert "Docker package docker.io=99.0-1 could not be installed on spark1" in run.message
    assert "Correct dgx_vllm_docker_package or dgx_vllm_docker_version" in run.message
    assert '"apt-cache policy docker.io" lists the versions' in run.message
    assert not differences(before, node.snapshot())


def test_key_with_an_unexpected_fingerprint(operator: Operator, node: Node) -> None:
    run = operator.fail(toolkit_repo_key_fingerprint="0123456789ABCDEF0123456789ABCDEF01234567")
    assert "does not have the fingerprint 0123456789ABCDEF0123456789ABCDEF01234567" in run.message
    assert "check the address, or set dgx_vllm_toolkit_repo_key_fingerprint" in run.message
    folders = [node.host.file(f"/etc/apt/{name}").listdir() for name in ("keyrings", "sources.list.d")]
    assert not [file for files in folders for file in files if "nvidia" in file]


def test_toolkit_version_that_no_repository_has(operator: Operator, node: Node) -> None:
    run = operator.fail(toolkit_version="9.9.9-1")
    assert "nvidia-container-toolkit=9.9.9-1 could not be installed on spark1" in run.message
    assert "Correct dgx_vllm_toolkit_version or dgx_vllm_toolkit_repo_url" in run.message
    assert not node.host.package("nvidia-container-toolkit").is_installed


def test_corrected_run_deploys(operator: Operator, node: Node) -> None:
    """The corrected run deploys the node; no command line on it holds a secret, that of the download included."""
    with watching(node) as commands:
        run = operator.succeed(hf_token=HUB_TOKEN, toolkit_version="1.17.8-1")
        lines = commands()
    missed = [part for part in COMMANDS if not any(part in line for line in lines)]
    assert not missed, f"these commands were not recorded, so this test proves nothing about them: {missed}"
    assert not operator.leaks(lines)
    assert node.completes()
    # Class D: not the newest version, and all parts of the toolkit have it.
    for name in TOOLKIT:
        assert node.host.package(name).version == "1.17.8-1", name
    assert run.counts["failed"] == 0
