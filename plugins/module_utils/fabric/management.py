"""The interfaces over which a node is administered, which must never become rails."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.sysfs import addresses, entries
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text


def default_routes(root: Path) -> set[str]:
    """Interfaces of the default routes, IPv4 and IPv6."""
    found = set()
    for text in read_text(root / "proc/net/route").splitlines()[1:]:
        columns = text.split()
        if len(columns) > 7 and columns[1] == "00000000" and columns[7] == "00000000":
            found.add(columns[0])
    for text in read_text(root / "proc/net/ipv6_route").splitlines():
        columns = text.split()
        if len(columns) > 9 and columns[0] == "0" * 32 and columns[1] == "00" and columns[9] != "lo":
            found.add(columns[9])
    return found


def own_session(root: Path) -> tuple[str, int] | None:
    """Own address and port of the ssh session that this process belongs to; None outside of one.

    sudo takes SSH_CONNECTION away, so the parents are asked as well, up to the session's own shell.
    """
    process = "self"
    while process not in ("", "0"):
        folder = root / "proc" / process
        for text in read_text(folder / "environ").split("\0"):
            words = text.split()
            if text.startswith("SSH_CONNECTION=") and len(words) == 4 and words[3].isdigit():
                return words[2].partition("%")[0], int(words[3])
        status = read_text(folder / "stat").rpartition(")")[2].split()
        process = status[1] if len(status) > 1 else ""
    return None


def session_addresses(root: Path) -> set[str]:
    """Own addresses of the ssh sessions that are open now, at port 22 and at that of this process's own session."""
    own = own_session(root)
    ports = {22, *(own[1:] if own else ())}
    found = {own[0].partition("::ffff:")[2] or own[0]} if own else set()
    for table in ("tcp", "tcp6"):
        for text in read_text(root / "proc/net" / table).splitlines()[1:]:
            columns = text.split()
            if len(columns) < 4 or columns[3] != "01":
                continue
            address, _, local_port = columns[1].rpartition(":")
            if int(local_port, 16) in ports:
                raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
                parsed = ipaddress.ip_address(raw)
                mapped = getattr(parsed, "ipv4_mapped", None)
                found.add(str(mapped or parsed))
    return found


def resolved(known: Iterable[str], runner: Runner) -> set[str]:
    """The addresses in `known`, and those that this machine knows for the names in it."""
    found = set()
    for text in known:
        try:
            found.add(str(ipaddress.ip_address(text)))
        except ValueError:
            told = runner(["getent", "ahosts", text]).stdout
            found |= {line.split()[0] for line in told.splitlines() if line.strip()}
    return found


def with_lower(root: Path, interfaces: Iterable[str]) -> set[str]:
    """The interfaces and everything they stand on: ports of a bridge, links of a bond, the parent of a VLAN."""
    found: set[str] = set()
    waiting = list(interfaces)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        prefix = "lower_"
        for entry in entries(root / "sys/class/net" / name):
            if entry.startswith(prefix):
                waiting.append(entry[len(prefix) :])
    return found


def management(root: Path, owned: dict[str, list[str]], known: Iterable[str], runner: Runner) -> set[str]:
    """Interfaces that must never become a rail: default routes, open ssh sessions, addresses and names in `known`."""
    kept = session_addresses(root) | resolved(known, runner)
    holders = {
        name
        for table in (owned, addresses(runner, 6))
        for name, own in table.items()
        for address in own
        if address.partition("/")[0] in kept
    }
    return with_lower(root, default_routes(root) | holders)
