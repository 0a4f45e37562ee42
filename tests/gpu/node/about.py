#!/usr/bin/env python3
"""What the trial ran on, as JSON: this machine's GPUs, kernel and Python packages, and what the bundle brought.

about.py --bundle DIR
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "transformers", "numpy", "safetensors")


def gpus() -> list[str]:
    """Name, memory and driver of each GPU, as nvidia-smi says it."""
    query = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,compute_cap,driver_version",
        "--format=csv,noheader",
    ]
    try:
        return subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


def packages() -> dict[str, str]:
    """Versions of what vLLM builds on, those that are there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def about(bundle: Path) -> dict[str, Any]:
    """Everything."""
    contents = bundle / "contents.json"
    return {
        "gpus": gpus(),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "packages": packages(),
        "bundle": json.loads(contents.read_text(encoding="utf-8")) if contents.exists() else {},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    print(json.dumps(about(parser.parse_args().bundle), indent=1))
