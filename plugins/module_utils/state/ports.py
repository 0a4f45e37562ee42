"""Who listens on a TCP port, from /proc alone (no ss, no lsof on a bare machine)."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text

_LISTEN = "0A"
_UNIT = re.compile(r"/([^/]+\.(?:service|socket|scope))")


def _address(text: str) -> str:
    """An address of /proc/net/tcp{,6}: 32-bit words, little-endian on x86 and Arm."""
    raw = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _listeners(root: Path, port: int) -> dict[str, str]:
    """Socket inode -> address of every listening socket of `port`."""
    found: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in read_text(root / "proc/net" / table).splitlines()[1:]:
            columns = line.split()
            if len(columns) < 10 or columns[3] != _LISTEN:
                continue
            address, _, number = columns[1].rpartition(":")
            if int(number, 16) == port:
                found[columns[9]] = _address(address)
    return found


def _holder(root: Path, inodes: set[str]) -> int | None:
    """The lowest process id that has one of the sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    processes = sorted(int(name) for name in os.listdir(root / "proc") if name.isdigit())
    for pid in processes:
        directory = root / "proc" / str(pid) / "fd"
        try:
            for name in os.listdir(directory):
                if os.readlink(directory / name) in wanted:
                    return pid
        except OSError:
            continue
    return None


def unit_of(cgroup: str, container_id: str, unit: str) -> str | None:
    """The systemd unit of a process from its /proc/PID/cgroup text.

    A container on the host's network sits in Docker's cgroup, not in the unit's that started the client: the
    container's id in the path makes it ours.
    """
    if container_id and container_id in cgroup:
        return unit
    names = [match for line in cgroup.splitlines() for match in _UNIT.findall(line)]
    return names[-1] if names else None


def owner(root: Path, port: int, container_id: str, unit: str) -> dict[str, Any]:
    """Who listens on `port`; the pid stays None when /proc does not let this user see it."""
    empty: dict[str, Any] = {"in_use": False, "pid": None, "process": None, "unit": None, "addresses": []}
    if port <= 0:
        return empty
    sockets = _listeners(root, port)
    if not sockets:
        return empty
    pid = _holder(root, set(sockets))
    process = unit_name = None
    if pid is not None:
        process = read_text(root / f"proc/{pid}/comm").strip() or None
        unit_name = unit_of(read_text(root / f"proc/{pid}/cgroup"), container_id, unit)
    return {
        "in_use": True,
        "pid": pid,
        "process": process,
        "unit": unit_name,
        "addresses": sorted(set(sockets.values())),
    }
