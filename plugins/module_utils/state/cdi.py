"""CDI specifications of the GPU, and the driver that is loaded. What cannot be read is None or empty: unknown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under

FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Docker's defaults."""

UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
REFRESH = "nvidia-cdi-refresh.service"
"""Unit of the container toolkit from 1.18 on, which writes /var/run/cdi/nvidia.yaml at boot and with a new driver."""

LIBRARIES = ("/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")

# As in roles/dgx_vllm/files/start.py, which runs on a node without these modules.
_KIND = re.compile(r"""\bkind["']?\s*:\s*["']?nvidia\.com/gpu["']?\s*(?:[,}]|$)""", re.MULTILINE)
_LIBRARY = re.compile(
    r"""\bhostPath["']?\s*:\s*["']?(/[^\s"',:]+/lib(?:cuda|nvidia-ml)\.so\.(\d+\.[\d.]*\d))"""
)
_DRIVER = re.compile(r"^NVRM version:.*?\s(\d{3,}\.\d+(?:\.\d+)*)\s", re.MULTILINE)
_SONAME = re.compile(r"libcuda\.so\.(\d+\.[\d.]*\d)$")


def specifications(root: Path, folders: Sequence[str] = FOLDERS) -> list[dict[str, Any]]:
    """Each specification that names nvidia.com/gpu: `path`, `drivers` of its libraries, those that are `gone`."""
    found: list[dict[str, Any]] = []
    for folder in folders:
        try:
            names = sorted(os.listdir(under(root, folder)))
        except OSError:
            continue
        for name in names:
            path = f"{folder}/{name}"
            text = read_text(under(root, path)) if name.endswith((".yaml", ".json")) else ""
            if not _KIND.search(text):
                continue
            libraries = dict(_LIBRARY.findall(text))
            gone = sorted(library for library in libraries if not under(root, library).exists())
            found.append({"path": path, "drivers": sorted(set(libraries.values())), "gone": gone})
    return found


def refreshes(root: Path) -> bool:
    """Whether the installed toolkit keeps a specification up to date by itself."""
    return any(under(root, f"{folder}/{REFRESH}").exists() for folder in UNITS)


def driver(root: Path) -> dict[str, str | None]:
    """Version of the `loaded` kernel module, and of the libraries that are `installed`."""
    loaded = _DRIVER.search(read_text(root / "proc/driver/nvidia/version"))
    installed = None
    for folder in LIBRARIES:
        try:
            installed = _SONAME.search(os.path.realpath(under(root, f"{folder}/libcuda.so.1")))
        except OSError:
            continue
        if installed:
            break
    return {"loaded": loaded[1] if loaded else None, "installed": installed[1] if installed else None}


def reboot_pending(versions: Mapping[str, str | None]) -> bool:
    """Whether the driver was updated and its old module is still loaded: the next container would not get the GPU."""
    loaded, installed = versions.get("loaded"), versions.get("installed")
    return bool(loaded and installed and loaded != installed)
