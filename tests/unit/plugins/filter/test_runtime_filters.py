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
