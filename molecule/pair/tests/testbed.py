"""The testbed as the pair's tests use it: cables are plugged, and machines are switched off and on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

SHARED = Path(__file__).resolve().parents[2] / "shared"
INVENTORY = Path(__file__).resolve().parents[1] / "inventory/hosts.yml"


def run_on_testbed(script: str) -> str:
    """Run a line of shell with the testbed's lib.sh; its output."""
    done = subprocess.run(
        ["bash", "-c", f'. "$0"; {script}', str(SHARED / "bin/lib.sh")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def plug(swapped: bool = False) -> None:
    """Plug the cables of nodes that have booted (real ones stay plugged); `swapped`: crossed at spark2's end."""
    inventory: dict[str, Any] = yaml.safe_load(INVENTORY.read_text(encoding="utf-8"))["dgx_vllm"]
    cables = inventory["vars"]["testbed_cables"]
    far_ends = [cable[3:] for cable in cables]
    if swapped:
        far_ends.reverse()
    for near, far in zip([cable[:3] for cable in cables], far_ends, strict=True):
        ends = []
        for host, interface, rail in (near, far):
            address = inventory["hosts"][host]["dgx_vllm_fabric_addresses"][rail]
            ends.append(f'"$TESTBED_PREFIX-pair-{host}" {interface}={address}')
        run_on_testbed(f'"$TESTBED_SHARED/bin/cable" {" ".join(ends)}')
