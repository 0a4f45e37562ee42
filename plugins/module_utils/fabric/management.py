"""The interfaces over which a node is administered, which must never become rails."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.sysfs import addresses, entries
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.ports import connections


def default_routes(root: Path) -> set[str]:
    """Interfaces of the default routes, IPv4 and IPv6."""
    interfaces = set()
    for text in read_text(root / "proc/net/route").splitlines()[1:]:
        columns = text.split()
        if len(columns) > 7 and columns[1] == "00000000" and columns[7] == "00000000":
            interfaces.add(columns[0])
    for text in read_text(root / "proc/net/ipv6_route").splitlines():
        columns = text.split()
        if len(columns) > 9 and columns[0] == "0" * 32 and columns[1] == "00" and columns[9] != "lo":
            interfaces.add(columns[9])
    return interfaces


def own_session(root: Path) -> tuple[str, int] | None:
    """Own address and port of the ssh session that this process belongs to; None outside of one.

    sudo removes SSH_CONNECTION, so the parents are asked as well, up to the session's own shell.
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


def session_addresses(root: Path, runner: Runner) -> tuple[set[str], str]:
    """Own addresses of the open ssh sessions, at port 22 and at the port of this process's own session.

    The second value says why the others cannot be seen; "" if they can.
    """
    own = own_session(root)
    ports = {22, *(own[1:] if own else ())}
    mine = {own[0].partition("::ffff:")[2] or own[0]} if own else set()
    connected, complaint = connections(runner)
    return mine | {address for address, port in connected if port in ports}, complaint


def resolved(hosts: Iterable[str], runner: Runner) -> set[str]:
    """The addresses in `hosts`, and those that this machine knows for the names in it."""
    numeric = set()
    for host in hosts:
        try:
            numeric.add(str(ipaddress.ip_address(host)))
        except ValueError:
            answer = runner(["getent", "ahosts", host]).stdout
            numeric |= {line.split()[0] for line in answer.splitlines() if line.strip()}
    return numeric


def with_lower(root: Path, interfaces: Iterable[str]) -> set[str]:
    """The interfaces and everything they stand on: ports of a bridge, links of a bond, the parent of a VLAN."""
    seen: set[str] = set()
    waiting = list(interfaces)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        prefix = "lower_"
        for entry in entries(root / "sys/class/net" / name):
            if entry.startswith(prefix):
                waiting.append(entry[len(prefix) :])
    return seen


def management(
    root: Path, owned: dict[str, list[str]], hosts: Iterable[str], runner: Runner
) -> tuple[set[str], str]:
    """Interfaces that must never become a rail: default routes, open ssh sessions, addresses and names in `hosts`.

    A session of a peer over a rail that the role configured (somebody copies weights) does not make it one; this run's
    own session does.
    The second value is a sentence if the ssh sessions could not be read, else "".
    """
    sessions, complaint = session_addresses(root, runner)
    given = {address.partition("/")[0] for _, address in netplan.given(netplan.read(root)["text"])}
    own = own_session(root)
    peers = given - {own[0]} if own else given
    protected = (sessions - peers) | resolved(hosts, runner)
    holders = {
        name
        for table in (owned, addresses(runner, 6))
        for name, own in table.items()
        for address in own
        if address.partition("/")[0] in protected
    }
    problem = (
        f"{complaint}, so open ssh sessions are not seen; install or repair iproute2." if complaint else ""
    )
    return with_lower(root, default_routes(root) | holders), problem
