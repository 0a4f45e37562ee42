"""The GPU as nvidia-smi sees it, and the NVIDIA container toolkit."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, SEARCH_PATH, Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under

QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")


def gpus(runner: Runner) -> dict[str, Any]:
    """Name, compute capability and driver version of each GPU; `error` if nvidia-smi lists none."""
    done = runner(QUERY)
    if done.rc == MISSING:
        return {"error": "nvidia-smi is not installed", "gpus": []}
    if done.rc != 0:
        return {"error": done.complaint or f"nvidia-smi ended with status {done.rc}", "gpus": []}
    rows = []
    for line in done.stdout.splitlines():
        columns = [column.strip() for column in line.split(",")]
        if len(columns) == 3:
            rows.append({"name": columns[0], "compute_capability": columns[1], "driver_version": columns[2]})
    return {"error": None if rows else "nvidia-smi lists no GPU", "gpus": rows}


def find_tool(root: Path, name: str) -> str | None:
    """The path of an executable on the search path, seen from inside `root`."""
    for directory in SEARCH_PATH.split(":"):
        path = f"{directory}/{name}"
        if os.access(under(root, path), os.X_OK):
            return path
    return None


def toolkit(root: Path, runner: Runner) -> dict[str, Any]:
    """Path and version of nvidia-ctk; its first line is `NVIDIA Container Toolkit CLI version 1.18.0`."""
    path = find_tool(root, "nvidia-ctk")
    if path is None:
        return {"path": None, "version": None}
    match = re.search(r"version\s+v?(\d[\w.~+-]*)", runner([path, "--version"]).stdout)
    return {"path": path, "version": match.group(1) if match else None}
