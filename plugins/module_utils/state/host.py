"""Facts about the machine itself: system, kernels, memory, disks, clock, Debian packages.

Every reader takes the root directory (`/` on a node, a temporary tree in a test) and reports what it cannot
find as None or an empty value. Sizes are bytes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner

_HANDOVER = "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y"
_NVIDIA_MODULE = re.compile(r"(?:^|/)nvidia\.ko(?:\.(?:xz|zst|gz))?$")


def under(root: Path, path: str) -> Path:
    """The place of the absolute `path` inside `root`."""
    return root / path.lstrip("/")


def read_text(path: Path) -> str:
    """The file's text, or an empty string if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def operating_system(root: Path) -> dict[str, Any]:
    """ID, VERSION_ID and PRETTY_NAME from os-release."""
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            fields[key.strip()] = value.strip().strip("\"'")
    return {
        "id": fields.get("ID", ""),
        "version_id": fields.get("VERSION_ID", ""),
        "pretty_name": fields.get("PRETTY_NAME", ""),
    }


def version_key(version: str) -> list[tuple[int, int, str]]:
    """A key that sorts kernel releases as a boot loader does: numbers as numbers, the rest as text."""
    return [
        (1, int(part), "") if part.isdigit() else (0, 0, part)
        for part in re.findall(r"\d+|[a-z]+", version.lower())
    ]


def _has_nvidia_module(directory: Path) -> bool:
    """modules.dep lists every module depmod knows; without it the tree itself is searched."""
    listed = read_text(directory / "modules.dep")
    if listed:
        return any(_NVIDIA_MODULE.search(line.partition(":")[0]) for line in listed.splitlines())
    return any(_NVIDIA_MODULE.search(path.name) for path in directory.glob("**/nvidia.ko*"))


def _hands_over(root: Path, name: str) -> bool:
    """Whether the kernel's configuration says so; one that cannot be read says nothing."""
    return _HANDOVER in read_text(root / f"boot/config-{name}").splitlines()


def kernel(root: Path) -> dict[str, Any]:
    """The running kernel, the installed ones, those not older than it that lack nvidia.ko, and those with KHO on.

    `handover` are the kernels that reserve memory for Kexec HandOver unless they boot with kho=off.
    A kernel counts as lacking only while another installed kernel has the module: a machine whose driver is
    not a module under /lib/modules (a container, a built-in) is not blamed.
    """
    running = read_text(root / "proc/sys/kernel/osrelease").strip()
    base = root / "lib/modules"
    try:
        names = [
            entry.name
            for entry in base.iterdir()
            if (entry / "modules.dep").exists() or (entry / "kernel").is_dir()
        ]
    except OSError:
        names = []
    installed = sorted(names, key=version_key)
    having = {name for name in installed if _has_nvidia_module(base / name)}
    lacking = [
        name
        for name in installed
        if having and name not in having and (not running or version_key(name) >= version_key(running))
    ]
    return {
        "running": running,
        "installed": installed,
        "without_nvidia_module": lacking,
        "handover": [
            name for name in dict.fromkeys([*installed, running]) if name and _hands_over(root, name)
        ],
        "command_line": read_text(root / "proc/cmdline").strip(),
    }


def memory(root: Path) -> dict[str, Any]:
    """MemTotal, MemAvailable and SwapTotal of /proc/meminfo; on a GB10 nvidia-smi reports no memory size."""
    fields: dict[str, int] = {}
    for line in read_text(root / "proc/meminfo").splitlines():
        match = re.match(r"(\w+):\s+(\d+) kB", line)
        if match:
            fields[match.group(1)] = int(match.group(2)) * 1024
    return {
        "total_bytes": fields.get("MemTotal", 0),
        "available_bytes": fields.get("MemAvailable", 0),
        "swap_total_bytes": fields.get("SwapTotal", 0),
    }


def _mount_of(root: Path, path: str) -> str:
    best = "/"
    for line in read_text(root / "proc/self/mounts").splitlines():
        columns = line.split()
        if len(columns) < 2:
            continue
        point = columns[1].replace("\\040", " ")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) > len(best):
            best = point
    return best


def disk(root: Path, path: str) -> dict[str, Any]:
    """Free and total bytes of the file system that holds `path`, or its nearest parent that exists."""
    place = os.path.normpath(path or "/")
    while place != "/" and not under(root, place).exists():
        place = os.path.dirname(place)
    free = total = 0
    try:
        figures = os.statvfs(under(root, place))
        free, total = figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize
    except OSError:
        pass
    return {
        "path": path,
        "mount": _mount_of(root, os.path.realpath(place) if str(root) == "/" else place),
        "free_bytes": free,
        "total_bytes": total,
    }


def clock(runner: Runner, now: float = 0.0) -> dict[str, Any]:
    """Whether the kernel's clock is synchronized, as timedatectl tells; None if it cannot tell.

    `offset_seconds` is how far the clock is from `now`, the time of the operator's machine; None without one.
    """
    offset = round(time.time() - now, 1) if now else None
    done = runner(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    answer = done.stdout.strip()
    synchronized = {"yes": True, "no": False}.get(answer) if done.rc == 0 else None
    return {"synchronized": synchronized, "offset_seconds": offset}


def packages(names: Sequence[str], runner: Runner) -> dict[str, Any]:
    """Installed version of each Debian package, None for one that is not installed."""
    versions: dict[str, Any] = dict.fromkeys(names)
    if not versions:
        return versions
    done = runner(["dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\t${Version}\n", *versions])
    for line in done.stdout.splitlines():
        name, _, rest = line.partition("\t")
        status, _, version = rest.partition("\t")
        if name in versions and status == "installed":
            versions[name] = version
    return versions
