"""daemon.json without what nvidia-ctk added."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter import runtime

NVIDIA = {"args": [], "path": "nvidia-container-runtime"}


@pytest.mark.parametrize(
    ("daemon", "had", "rest"),
    [
        ({"runtimes": {"nvidia": NVIDIA}}, {"nvidia_runtime": False, "cdi": False}, {}),
        (
            {"runtimes": {"nvidia": NVIDIA}},
            {"nvidia_runtime": True, "cdi": False},
            {"runtimes": {"nvidia": NVIDIA}},
        ),
        (
            {"runtimes": {"nvidia": NVIDIA, "kata": {}}, "features": {"cdi": True}, "mtu": 9000},
            {"nvidia_runtime": False, "cdi": False},
            {"runtimes": {"kata": {}}, "mtu": 9000},
        ),
        (
            {"runtimes": {"nvidia": NVIDIA}, "features": {"cdi": True, "buildkit": True}},
            {"nvidia_runtime": False, "cdi": True},
            {"features": {"cdi": True, "buildkit": True}},
        ),
        ({}, {"nvidia_runtime": False, "cdi": False}, {}),
    ],
)
def test_only_what_was_added_is_removed(
    daemon: dict[str, Any], had: dict[str, bool], rest: dict[str, Any]
) -> None:
    given = dict(daemon)
    assert runtime.without_nvidia(daemon, had) == rest
    assert daemon == given, "the argument is not changed"


@pytest.mark.parametrize(
    ("daemon", "access", "version", "lacks"),
    [
        ({}, "runtime", "20.10.24", True),
        ({"runtimes": {"nvidia": NVIDIA}}, "runtime", "20.10.24", False),
        ({}, "cdi", "27.5.1", True),
        ({"features": {"cdi": True}}, "cdi", "27.5.1", False),
        ({}, "cdi", "28.5.2", False),
        ({"features": {"buildkit": True}}, "cdi", "29.0.1", False),
        ({"features": {"cdi": False}}, "cdi", "28.5.2", True),
        ({"features": None, "runtimes": None}, "runtime", "28.5.2", True),
        ({}, "cdi", "", True),
    ],
)
def test_docker_is_told_of_the_gpu_only_if_it_has_to_be(
    daemon: dict[str, Any], access: str, version: str, lacks: bool
) -> None:
    """S10: a restart of Docker ends other people's containers. R13: CDI that somebody turned off is seen."""
    assert runtime.daemon_lacks_gpu(daemon, access, version) is lacks
