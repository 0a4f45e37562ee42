"""The test bed's side of the pair: the machine room, where cables are plugged and machines are switched off and on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

SHARED = Path(__file__).resolve().parents[2] / "shared"
INVENTORY = Path(__file__).resolve().parents[1] / "inventory/hosts.yml"


def bed(script: str) -> str:
    """Run a line of shell with the names of the test bed; its output."""
    done = subprocess.run(
        ["bash", "-c", f'. "$0"; {script}', str(SHARED / "bin/lib.sh")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def plug(swapped: bool = False) -> None:
    """The cables of nodes that have booted (the real ones stay where they are); `swapped`: crossed at spark2's end."""
    inventory: dict[str, Any] = yaml.safe_load(INVENTORY.read_text(encoding="utf-8"))["dgx_vllm"]
    cables = inventory["vars"]["bed_cables"]
    far_ends = [cable[3:] for cable in cables]
    if swapped:
        far_ends.reverse()
    for near, far in zip([cable[:3] for cable in cables], far_ends, strict=True):
        ends = []
        for host, interface, rail in (near, far):
            address = inventory["hosts"][host]["dgx_vllm_fabric_addresses"][rail]
            ends.append(f'"$BED_PREFIX-pair-{host}" {interface}={address}')
        bed(f'"$BED_SHARED/bin/cable" {" ".join(ends)}')
