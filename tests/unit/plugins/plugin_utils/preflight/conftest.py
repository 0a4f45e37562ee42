"""A healthy node, as dgx_vllm_state would describe it, and the role's default settings."""

from __future__ import annotations

import copy
from typing import Any

import pytest

GIB = 2**30

NODE: dict[str, Any] = {
    "arch": "aarch64",
    "os": {"id": "ubuntu", "version_id": "24.04", "pretty_name": "Ubuntu 24.04.3 LTS"},
    "kernel": {
        "running": "6.17.0-1014-nvidia",
        "installed": ["6.17.0-1008-nvidia", "6.17.0-1014-nvidia"],
        "without_nvidia_module": [],
        "command_line": "quiet",
        "handover": [],
    },
    "gpu": {
        "error": None,
        "gpus": [{"name": "NVIDIA GB10", "compute_capability": "12.1", "driver_version": "580.95.05"}],
    },
    "memory": {"total_bytes": 120 * GIB, "available_bytes": 110 * GIB, "swap_total_bytes": 0},
    "disks": {
        "docker": {
            "path": "/var/lib/docker",
            "mount": "/",
            "free_bytes": 900 * GIB,
            "total_bytes": 3600 * GIB,
        },
        "models": {"path": "/var/lib/m", "mount": "/", "free_bytes": 900 * GIB, "total_bytes": 3600 * GIB},
    },
    "port": {"in_use": False, "pid": None, "process": None, "unit": None, "addresses": []},
    "time": {"synchronized": True},
    "docker": {
        "installed": True,
        "running": True,
        "timed_out": False,
        "error": None,
        "version": "28.2.2",
        "cgroup_driver": "systemd",
        "containers": [],
    },
    "daemon_json": {"exists": False, "error": None, "content": {}},
    "apt": [],
    "nvidia_ctk": {"path": "/usr/bin/nvidia-ctk", "version": "1.18.0"},
    "model": {"kind": "hub", "present": False, "size_bytes": 0, "heads": None},
    "service": {"active_state": "inactive"},
    "container": {"running": False},
}

SETTINGS: dict[str, Any] = {
    "capability": "12.1",
    "architectures": ["aarch64"],
    "driver_denied": ["590.*"],
    "accept": [],
    "min_free_docker_gib": 60,
    "min_free_models_gib": 100,
    "image_needed": True,
    "model_needed": True,
    "gpu_memory_utilization": 0.8,
    "kv_cache_memory_bytes": 0,
    "host": "127.0.0.1",
    "port": 8000,
    "api_key_set": False,
    "gpu_access": "auto",
}


@pytest.fixture
def node() -> dict[str, Any]:
    return copy.deepcopy(NODE)


@pytest.fixture
def settings() -> dict[str, Any]:
    return copy.deepcopy(SETTINGS)
