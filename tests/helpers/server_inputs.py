"""What the filters of a node's server are given: the role's variables, and what the role knows of a node."""

from __future__ import annotations

from typing import Any

import yaml

from helpers.ansible_run import ROOT

ROLE = ROOT / "roles/dgx_vllm"

NODE: dict[str, Any] = {
    "cache": "/var/lib/dgx-vllm/cache/0f1e2d3c4b5a",
    "commit": "0123abcd",
    "config_dir": "/etc/dgx-vllm",
    "container": "dgx-vllm",
    "gpu": ["--gpus=all"],
    "image": "dgx-vllm:1",
    "served_names": ["m"],
    "start_note": "/var/lib/dgx-vllm/state/start.json",
    "tune_container": "dgx-vllm-tune",
    "tune_results": "/var/lib/dgx-vllm/tuning/m",
    "unit": "dgx-vllm.service",
    "watch_secret": "/etc/dgx-vllm/watch.secret",
    "watch_state": "/var/lib/dgx-vllm/state/watch.json",
}


def settings(**changes: Any) -> dict[str, Any]:
    """The role's defaults with `changes` (names without dgx_vllm_), as the role hands them over."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    assert isinstance(defaults, dict)
    return {
        **defaults,
        "dgx_vllm_model": "org/m",
        **{f"dgx_vllm_{name}": value for name, value in changes.items()},
    }


def variables() -> dict[str, Any]:
    """vars/main/server.yml as it is written."""
    found = yaml.safe_load((ROLE / "vars/main/server.yml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found
