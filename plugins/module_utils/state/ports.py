"""Who listens on a TCP port and who is connected, as ss (iproute2) tells."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, Completed, Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text

_UNIT = re.compile(r"/([^/]+\.(?:service|socket|scope))")
_PID = re.compile(r'",pid=(\d+),fd=\d+\)')
"""The end of one process in `users:(("NAME",pid=1,fd=3),…)`; ss prints quotes and brackets of a name as they are."""


def endpoint(text: str) -> tuple[str, int] | None:
    """Address and port of a column of ss; None if it is not one.

    `*` (all addresses, IPv4 too) is `::`, an IPv4 address in an IPv6 one is the IPv4 address, and the interface of
    a link-local address or of a socket that is bound to one (`[fe80::1]%eth0:22`, `0.0.0.0%eth0:22`) is left out.
    """
    address, _, port = text.rpartition(":")
    address = address.partition("%")[0].strip("[]")
    try:
        parsed = ipaddress.ip_address("::" if address == "*" else address)
        return str(getattr(parsed, "ipv4_mapped", None) or parsed), int(port)
    except ValueError:
        return None


def _complaint(done: Completed) -> str:
    if done.rc == MISSING:
        return "ss is not installed"
    return "" if done.rc == 0 else f"ss failed ({done.complaint or done.rc})"


def connections(runner: Runner) -> tuple[list[tuple[str, int]], str]:
    """(own address, own port) of every TCP connection, and why they cannot be read ("" if they can)."""
    done = runner(["ss", "-Htn", "state", "established"])
    columns = [line.split() for line in done.stdout.splitlines()]
    ends = [endpoint(words[2]) for words in columns if len(words) >= 4]
    return [end for end in ends if end], _complaint(done)


def unit_of(cgroup: str, container_id: str, unit: str) -> str | None:
    """The systemd unit of a process from its /proc/PID/cgroup text.

    A container on the host's network sits in Docker's cgroup, not in the unit's that started the client: the
    container's id in the path makes it ours.
    """
    if container_id and container_id in cgroup:
        return unit
    names = [match for line in cgroup.splitlines() for match in _UNIT.findall(line)]
    return names[-1] if names else None


def owner(root: Path, runner: Runner, port: int, container_id: str, unit: str) -> dict[str, Any]:
    """Who listens on `port`: the process with the lowest id, and the addresses.

    The pid is None if this user may not see it; `error` says why ss gave no answer.
    """
    empty: dict[str, Any] = {
        "in_use": False, "pid": None, "process": None, "unit": None, "addresses": [], "error": None,
    }  # fmt: skip
    if port <= 0:
        return empty
    done = runner(["ss", "-Hltnp", "sport", "=", f":{port}"])
    rows = [line.split(None, 5) for line in done.stdout.splitlines()]
    ends = [endpoint(words[3]) for words in rows if len(words) >= 5]
    addresses = sorted({end[0] for end in ends if end and end[1] == port})
    if not addresses:
        return {**empty, "error": _complaint(done) or None}
    pids = [int(pid) for words in rows for pid in _PID.findall(words[-1])]
    pid = min(pids, default=None)
    process = unit_name = None
    if pid is not None:
        process = read_text(root / f"proc/{pid}/comm").strip() or None
        unit_name = unit_of(read_text(root / f"proc/{pid}/cgroup"), container_id, unit)
    return {
        "in_use": True, "pid": pid, "process": process, "unit": unit_name, "addresses": addresses, "error": None,
    }  # fmt: skip
