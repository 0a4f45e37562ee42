"""Every check judges the same thing the same way: fresh node, broken-off run, next runs, after a reboot, serving.

One node alone and two in a replica, with weights of real size. A new check has to be in DEFECTS, or a test fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import CHECKS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.drift import NAMES, SERVED

from helpers.ansible_run import ROOT
from helpers.runs import GIB, KERNEL, STAGES, Deployment, Node

SIZES = {1: 76 * GIB, 2: 162 * GIB}
"""Nodes -> bytes of the weights; those of two fit into no single node."""

INSTALLED = STAGES[1:]
COMPLETE = STAGES[2:]
FETCHING = STAGES[:2]
KNOWN_AFTER = yaml.safe_load((ROOT / "roles/dgx_vllm/vars/main/preflight.yml").read_text(encoding="utf-8"))[
    "__dgx_vllm_known_after"
]


class Defect:
    """What is wrong with a node (the last one of a replica), how it is judged, and in which stages that is known."""

    def __init__(
        self,
        spoil: Callable[[Node], None],
        status: str = "fail",
        stages: tuple[str, ...] = STAGES,
        pair_only: bool = False,
        others: Callable[[Node], None] | None = None,
        **settings: Any,
    ) -> None:
        self.spoil, self.status, self.stages, self.pair_only = spoil, status, stages, pair_only
        self.others, self.settings = others, settings


def put(**values: Any) -> Callable[[Node], None]:
    def spoil(node: Node) -> None:
        for name, value in values.items():
            setattr(node, name, value)

    return spoil


def file(path: str, text: str) -> Callable[[Node], None]:
    return lambda node: node.write(path, text)


def two_keys(node: Node) -> None:
    line = "deb [signed-by=/usr/share/keyrings/{}.gpg] https://example.com/deb/$(ARCH) /"
    node.write("/etc/apt/sources.list.d/a.list", line.format("a"))
    node.write("/etc/apt/sources.list.d/b.list", line.format("b").replace("$(ARCH)", "arm64"))


def folder(heads: int, weights: bool = True) -> Callable[[Node], None]:
    def spoil(node: Node) -> None:
        node.write("/srv/model/config.json", json.dumps({"num_attention_heads": heads}))
        if weights:
            node.sparse("/srv/model/model.safetensors", node.weights)
        node.model = "/srv/model"

    return spoil


def desktop(node: Node) -> None:
    node.write("/proc/900/comm", "gnome-shell")
    node.write("/proc/900/status", "RssAnon:\t  1048576 kB")


def overlap(node: Node) -> None:
    node.machine.addresses["enP7s7"] = ["192.0.2.11/24", "198.51.100.200/24"]


DEFECTS: dict[str, Defect] = {
    "gpu": Defect(put(gpu="NVIDIA H100, 9.0, 580.95.05")),
    "driver": Defect(put(gpu="NVIDIA GB10, 12.1, 570.10")),
    "architecture": Defect(put(arch="x86_64")),
    "os": Defect(file("/etc/os-release", "ID=fedora")),
    "kernel": Defect(file(f"/boot/config-{KERNEL}", "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y"), "", STAGES),
    "kernel_module": Defect(file("/lib/modules/6.99.0-1-nvidia/modules.dep", "kernel/a.ko:")),
    "apt": Defect(two_keys),
    "docker": Defect(file("/etc/docker/daemon.json", "{")),
    "cgroup_driver": Defect(put(docker="20.10.24"), stages=INSTALLED),
    "containers": Defect(put(foreign="jupyter"), stages=INSTALLED, docker_restarts=True),
    "container_name": Defect(put(taken=True), stages=INSTALLED),
    "units": Defect(put(silent=True)),
    "memory": Defect(put(), kv_cache_memory_bytes=110 * GIB),
    "swap": Defect(lambda node: node.memory(110, swap=16), "warn"),
    "desktop": Defect(desktop, "warn"),
    "disk_docker": Defect(put(free=20 * GIB), stages=FETCHING),
    "disk_models": Defect(put(free=20 * GIB), stages=FETCHING),
    "model": Defect(folder(33, weights=False), others=folder(33)),
    "heads": Defect(folder(33), "warn", pair_only=True, others=folder(33)),
    "port": Defect(put(listens='users:(("other",pid=5,fd=3))')),
    "time_sync": Defect(put(synchronized="no"), "warn"),
    "exposure": Defect(put(), host="0.0.0.0"),
    "isolation": Defect(put(), container_extra_args=["--pid=host"]),
    "fabric_prefix": Defect(put(), rails=["8.8.8.1/26"]),
    "same_driver": Defect(put(gpu="NVIDIA GB10, 12.1, 580.99"), pair_only=True),
    "same_kernel": Defect(file("/proc/sys/kernel/osrelease", "6.17.0-1008-nvidia"), "warn", pair_only=True),
    "same_docker": Defect(put(docker="28.5.2"), "warn", INSTALLED, pair_only=True),
    "same_toolkit": Defect(put(toolkit="1.19.0-1"), "warn", INSTALLED, pair_only=True),
    "same_firmware": Defect(lambda node: node.machine.write(
        "sys/devices/pci0000:00/0000:00:00.0/0000:01:00.0/infiniband/rocep1s0f0/fw_ver", "28.40.1"
    ), "warn", pair_only=True),
    "same_image": Defect(put(image={"Id": "sha256:2", "Size": 1}), "warn", COMPLETE, pair_only=True),
    "same_model": Defect(put(commit="d" * 40), "warn", COMPLETE, pair_only=True),
    "same_clock": Defect(put(clock=60.0), "warn", pair_only=True),
    "rails": Defect(overlap, pair_only=True),
    "master_port": Defect(put(), "warn", pair_only=True, firewall=False),
}  # fmt: skip
"""A disk is judged while something is to be fetched; the others in every stage from the first that can know."""

LATER = {name for name, defect in DEFECTS.items() if defect.stages in (INSTALLED, COMPLETE)}


@pytest.mark.parametrize("size", SIZES)
def test_a_good_deployment_is_good_in_every_stage(size: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Also with a disk that has room for the rest of the weights only, and memory that our own server uses."""
    deployment = Deployment(tmp_path, size, SIZES[size], monkeypatch)

    def tight(stage: str) -> None:
        for node in deployment.nodes.values():
            node.free = {"interrupted": (60 + 100) * GIB - node.weights // 2}.get(stage, 900 * GIB)

    walked = deployment.walk(tight)
    seen = {check for checks in walked.values() for check in checks}
    expected = {*CHECKS, *NAMES, "rails"} if size > 1 else set(CHECKS)
    assert seen == expected
    worse = {
        (stage, check): status
        for stage, checks in walked.items()
        for check, status in checks.items()
        if status != "pass"
    }
    assert worse == {("fresh", "docker"): "warn"}


@pytest.mark.parametrize(
    ("check", "size"),
    [
        (check, size)
        for check, defect in DEFECTS.items()
        for size in SIZES
        if size > 1 or not defect.pair_only
    ],
)
def test_a_defect_is_judged_alike_in_every_stage(
    check: str, size: int, tmp_path: Path, monkeypatch: Any
) -> None:
    defect = DEFECTS[check]
    deployment = Deployment(tmp_path, size, SIZES[size], monkeypatch, **defect.settings)
    broken = list(deployment.nodes.values())[-1]
    for node in deployment.nodes.values():
        if defect.others and node is not broken:
            defect.others(node)
    defect.spoil(broken)
    walked = deployment.walk()
    status = defect.status or ("fail" if size > 1 else "warn")
    for stage in STAGES:
        wanted = {status} if stage in defect.stages else {"pass", "warn"} - {status}
        assert walked[stage].get(check) in wanted, (stage, walked[stage].get(check))


def test_every_check_is_walked() -> None:
    assert set(DEFECTS) == {*CHECKS, *NAMES, "rails", "master_port"}


def test_what_a_fresh_node_cannot_tell_is_asked_again_in_the_same_run() -> None:
    """Otherwise the first run passes and the second one stops; differences between nodes that only warn do not stop."""
    asked_again = {name for names in KNOWN_AFTER.values() for name in names} | set(SERVED)
    # A node without Docker has no containers.
    late = {name for name in LATER - {"containers", "container_name"} if DEFECTS[name].status == "fail"}
    assert late | set(SERVED) <= asked_again
    assert asked_again <= {*CHECKS, *SERVED}
    for stage in KNOWN_AFTER:
        tasks = "service" if stage == "model" else stage
        text = (ROOT / f"roles/dgx_vllm/tasks/{tasks}/main.yml").read_text(encoding="utf-8")
        assert f"__dgx_vllm_known_after.{stage})" in text


def test_weights_of_unknown_size_are_judged_once_they_are_known(tmp_path: Path, monkeypatch: Any) -> None:
    """A fresh node cannot tell; the same run asks again after the download, with the words of the next run."""
    deployment = Deployment(tmp_path, 1, 105 * GIB, monkeypatch)
    walked = deployment.walk()
    assert [walked[stage]["memory"] for stage in STAGES] == ["pass", "pass", "fail", "fail", "fail", "fail"]
    assert "memory" in KNOWN_AFTER["model"]


def test_a_network_that_docker_will_take_is_refused_before_docker_is_there(
    tmp_path: Path, monkeypatch: Any
) -> None:
    deployment = Deployment(tmp_path, 2, SIZES[2], monkeypatch)
    for node in deployment.nodes.values():
        node.row["rails"] = [{"address": "172.17.9.1/26"}, {"address": "172.17.9.65/26"}]
    assert {checks["rails"] for checks in deployment.walk().values()} == {"fail"}


def test_a_peer_that_copies_over_a_rail_does_not_make_it_management(tmp_path: Path, monkeypatch: Any) -> None:
    deployment = Deployment(tmp_path, 2, SIZES[2], monkeypatch)
    node = deployment.nodes["spark2"]

    def copies(stage: str) -> None:
        node.machine.connections = "0 0 198.51.100.2:22 198.51.100.1:51000\n" if stage != "fresh" else ""

    assert {checks["rails"] for checks in deployment.walk(copies).values()} == {"pass"}
    assert [rail["interface"] for rail in node.fabric()["rails"]] == ["enp1s0f0np0", "enP2p1s0f0np0"]
