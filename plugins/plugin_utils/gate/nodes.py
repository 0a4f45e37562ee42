"""Checks of one node's fabric, and of what the nodes of a replica must have in common. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import Limits

Facts = Mapping[str, Any]


class Finding(NamedTuple):
    """One line of the gate's report; `where` is a node, a pair of nodes with the rail, or a replica."""

    where: str
    check: str
    status: str
    found: str
    reason: str
    remedy: str


def rail_devices(facts: Facts) -> dict[int, Mapping[str, Any]]:
    """Rail -> its device, in order; a half that the machine does not show has none."""
    by_name = {one["interface"]: one for one in facts["devices"]}
    return {rail["rail"]: by_name[rail["interface"]] for rail in facts["rails"]}


def linked(facts: Facts) -> dict[int, Mapping[str, Any]]:
    """The devices of the rails that have a link: only these can be held against the plan."""
    return {rail: one for rail, one in rail_devices(facts).items() if one["carrier"]}


def _planned(facts: Facts, row: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(device, its rail in the plan) of the rails that have a link."""
    up = linked(facts)
    return [(up[rail["rail"]], rail) for rail in row["rails"] if rail["rail"] in up]


def _each(
    host: str, check: str, good: str, bad: Sequence[tuple[str, str, str]], status: str = "fail"
) -> Iterator[Finding]:
    """A failed line for each (found, reason, remedy), or one that passed."""
    if not bad:
        yield Finding(host, check, "pass", good, "", "")
    for found, reason, remedy in bad:
        yield Finding(host, check, status, found, reason, remedy)


def node_findings(host: str, facts: Facts, row: Mapping[str, Any], limits: Limits) -> list[Finding]:
    """All checks of one node against its row of the topology."""
    found = [*_rails(host, facts, row)]
    if not linked(facts):
        return found
    found += _speed(host, facts, limits)
    found += _mtu(host, facts, limits)
    found += _addresses(host, facts, row)
    if limits["rdma"]:
        found += _width(host, facts, limits)
        found += _rdma(host, facts)
        found += _gid(host, facts, row)
        found += _memlock(host, facts)
    return found


def _rails(host: str, facts: Facts, row: Mapping[str, Any]) -> Iterator[Finding]:
    up, wanted = linked(facts), len(row["rails"])
    names = ", ".join(one["interface"] for one in up.values()) or "none"
    problems = " ".join(facts["problems"])
    out = [rail for rail in range(wanted) if rail not in up]
    halves = [rail for rail in out if rail ^ 1 in up]
    if not up:
        yield Finding(
            host, "rails", "fail", names, problems, "plug the cable in and run playbooks/fabric.yml again"
        )
        return
    if halves:
        yield Finding(
            host,
            "half_port",
            "fail",
            f"rail {' and '.join(map(str, halves))} of {wanted} out; with a link: {names}",
            "one half of a cabled port does not take part, so at most half of its bandwidth is there. "
            f"{problems}".strip(),
            "bring the other half up; if it has no link, take the cable out, wait a few seconds and put it "
            "in again",
        )
    if len(out) > len(halves) or len(facts["rails"]) > wanted:
        yield Finding(
            host,
            "rails",
            "fail",
            f"{len(up)} half-ports with a link: {names}; {wanted} planned",
            f"the cables are not as planned. {problems}".strip(),
            "plug both cables in: a ring takes both ports of every node, port 0 to the next node's port 1"
            if row["kind"] == "ring"
            else f"change the cables, or write `dgx_vllm_fabric_ports: {(len(up) + 1) // 2}`",
        )
    elif not halves:
        yield Finding(
            host, "rails", "warn" if problems else "pass", names, problems,
            "mend it before the next reboot" if problems else "",
        )  # fmt: skip


def _speed(host: str, facts: Facts, limits: Limits) -> Iterator[Finding]:
    bad = [
        (
            f"{one['interface']} {one['speed_mbit']} Mb/s",
            f"the link came up below {limits['speed_mbit']} Mb/s",
            "use a cable for 200 Gb/s (QSFP56 or QSFP112) and put it in firmly; look at ethtool's speed on "
            "both ends",
        )
        for one in linked(facts).values()
        if one["speed_mbit"] is not None and one["speed_mbit"] < limits["speed_mbit"]
    ]
    speeds = sorted({str(one["speed_mbit"] or "unknown") for one in linked(facts).values()})
    return _each(host, "speed", f"{', '.join(speeds)} Mb/s", bad)


def _mtu(host: str, facts: Facts, limits: Limits) -> Iterator[Finding]:
    bad = [
        (
            f"{one['interface']} MTU {one['mtu']}",
            f"every half needs {limits['mtu']}; an adapter's firmware restart is known to reset one half",
            "run site.yml with the tag fabric: it writes the MTU into /etc/netplan/40-cx7.yaml and applies "
            "it",
        )
        for one in linked(facts).values()
        if (one["mtu"] or 0) < limits["mtu"]
    ]
    return _each(host, "mtu", f"{limits['mtu']}", bad)


def _addresses(host: str, facts: Facts, row: Mapping[str, Any]) -> Iterator[Finding]:
    bad = [
        (
            f"{one['interface']} has {', '.join(one['addresses']) or 'no address'}",
            f"rail {rail['rail']} is planned as {rail['address']}",
            "run site.yml with the tag fabric",
        )
        for one, rail in _planned(facts, row)
        if rail["address"] not in one["addresses"]
    ]
    return _each(host, "addresses", ", ".join(rail["address"] for rail in row["rails"]), bad)


def address_commands(facts: Facts, row: Mapping[str, Any], mtu: int) -> list[str]:
    """The ip commands that would give each rail its planned address and MTU now; [] when all have them.

    None for a rail whose cable is out: no command helps, and its configuration waits for the link.
    """
    devices = rail_devices(facts)
    found = []
    for rail in row["rails"]:
        one = devices.get(rail["rail"])
        if one is None or one["carrier"] is False:
            continue
        if (one["mtu"] or 0) < mtu or not one["carrier"]:
            found.append(f"ip link set dev {one['interface']} up mtu {mtu}")
        if rail["address"] not in one["addresses"]:
            found.append(f"ip address add {rail['address']} dev {one['interface']}")
    return found


def _width(host: str, facts: Facts, limits: Limits) -> Iterator[Finding]:
    bad = [
        (
            f"{one['interface']} PCIe x{one['pcie_width']}",
            f"a degraded link: this half hangs on x{one['pcie_width']} instead of x{limits['pcie_width']}, "
            "which old firmware "
            "does to the second half, so its bandwidth is cut",
            "update the adapter's firmware (fwupdmgr or NVIDIA's tool), then switch the machine off and on",
        )
        for one in rail_devices(facts).values()
        if one["pcie_width"] is not None and one["pcie_width"] < limits["pcie_width"]
    ]
    return _each(host, "pcie_width", f"x{limits['pcie_width']}", bad)


def _rdma(host: str, facts: Facts) -> Iterator[Finding]:
    bad = []
    for one in linked(facts).values():
        if not one["rdma"]:
            bad.append(
                (
                    f"{one['interface']} has no RDMA device",
                    "without one NCCL falls back to TCP at a tenth of the bandwidth",
                    "load mlx5_ib (modprobe mlx5_ib) and install rdma-core: site.yml with the tag fabric "
                    "does both",
                )
            )
        elif "ACTIVE" not in one["rdma_state"]:
            bad.append(
                (
                    f"{one['rdma']} is {one['rdma_state'] or 'in no known state'}",
                    "the RDMA port is not active",
                    f"ip link set {one['interface']} up; if it stays so, look at dmesg for mlx5",
                )
            )
    if not facts["uverbs"]:
        bad.append(
            ("/dev/infiniband is empty", "programs cannot reach the adapter", "modprobe ib_uverbs rdma_ucm")
        )
    return _each(host, "rdma", ", ".join(one["rdma"] for one in linked(facts).values()), bad)


def _gid(host: str, facts: Facts, row: Mapping[str, Any]) -> Iterator[Finding]:
    bad, good = [], []
    for one, rail in _planned(facts, row):
        address = rail["address"].partition("/")[0]
        matching = [gid for gid in one["gids"] if gid["address"] == address]
        version_2 = [gid for gid in matching if gid["type"] == "RoCE v2"]
        good += [f"{one['rdma']}:{gid['index']}" for gid in version_2]
        if one["rdma"] and not version_2:
            bad.append(
                (
                    f"{one['rdma']} has {'only RoCE v1' if matching else 'no GID'} for {address}",
                    "NCCL needs a RoCE v2 entry that holds the rail's IPv4 address",
                    f"take the address off {one['interface']} and put it on again (netplan apply), then look "
                    "at "
                    f"/sys/class/infiniband/{one['rdma']}/ports/1/gid_attrs/types",
                )
            )
    return _each(host, "gid", ", ".join(good), bad)


def _memlock(host: str, facts: Facts) -> Iterator[Finding]:
    limit = facts["memlock"]["docker"]
    bad = []
    if limit and limit.isdigit() and int(limit) < 2**30:
        bad.append(
            (
                f"Docker's limit of locked memory is {int(limit) // 1024} KiB",
                "RDMA buffers are locked memory, and registering them fails above the limit",
                "set LimitMEMLOCK=infinity for docker.service; site.yml with the tag fabric does",
            )
        )
    return _each(host, "memlock", str(limit or "unknown"), bad, "warn")


def drift(name: str, hosts: Mapping[str, Facts]) -> list[Finding]:
    """What the nodes of a replica must have in common: firmware; and whether they use the same port of the adapter."""
    firmware: dict[str, list[str]] = {}
    ports: dict[str, list[str]] = {}
    for host, facts in hosts.items():
        for one in rail_devices(facts).values():
            if one["firmware"]:
                firmware.setdefault(one["firmware"], []).append(f"{host} {one['interface']}")
        used = sorted({rail["port"] for rail in facts["rails"]})
        ports.setdefault(" and ".join(map(str, used)), []).append(host)
    found = [*_each(name, "firmware", ", ".join(firmware) or "unknown", _firmware(firmware), "warn")]
    mixed = "; ".join(f"port {port}: {', '.join(users)}" for port, users in ports.items())
    if len(ports) > 1:
        found.append(
            Finding(
                name,
                "mixed_ports",
                "warn",
                mixed,
                "the cable is in different ports; it works, since names are rendered for each node, but a "
                "cable that is "
                "put back elsewhere changes them",
                "move the cables to the same port on every node, then run site.yml with the tag fabric",
            )
        )
    else:
        found.append(Finding(name, "mixed_ports", "pass", mixed, "", ""))
    return found


def _firmware(firmware: Mapping[str, Sequence[str]]) -> list[tuple[str, str, str]]:
    if len(firmware) < 2:
        return []
    text = "; ".join(f"{version} on {', '.join(dict.fromkeys(users))}" for version, users in firmware.items())
    return [
        (
            text,
            "adapters with different firmware behave differently under load, and the older one decides",
            "bring all nodes to the newest of these versions and switch them off and on",
        )
    ]
