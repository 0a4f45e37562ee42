"""Checks of one node's fabric, and of what the nodes of a replica must have in common. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding, failed, passed, warned
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import Limits

Facts = Mapping[str, Any]
Device = Mapping[str, Any]
Fault = tuple[str, str, str]
"""What was found, the reason, the remedy."""


def rail_devices(facts: Facts) -> dict[int, Device]:
    """Rail -> its device, in order; an interface that the machine does not show has none."""
    by_name = {device["interface"]: device for device in facts["devices"]}
    return {rail["rail"]: by_name[rail["interface"]] for rail in facts["rails"]}


def linked(facts: Facts) -> dict[int, Device]:
    """The devices of the rails that have a link: only these can be compared with the plan."""
    return {rail: device for rail, device in rail_devices(facts).items() if device["carrier"]}


def _planned(facts: Facts, row: Mapping[str, Any]) -> list[tuple[Device, Mapping[str, Any]]]:
    """(device, its rail in the plan) of the rails that have a link."""
    up = linked(facts)
    return [(up[rail["rail"]], rail) for rail in row["rails"] if rail["rail"] in up]


def _each(
    where: str,
    check: str,
    good: str,
    faults: Sequence[Fault],
    report: Callable[[str, str, str, str, str], Finding] = failed,
) -> Iterator[Finding]:
    """One finding per fault, or one that passed."""
    if not faults:
        yield passed(where, check, good)
    for found, reason, remedy in faults:
        yield report(where, check, found, reason, remedy)


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
    return found


def _rails(host: str, facts: Facts, row: Mapping[str, Any]) -> Iterator[Finding]:
    up, count = linked(facts), len(row["rails"])
    names = ", ".join(device["interface"] for device in up.values()) or "none"
    problems = " ".join(facts["problems"])
    out = [rail for rail in range(count) if rail not in up]
    half_ports = [rail for rail in out if rail ^ 1 in up]
    if not up:
        yield failed(host, "rails", names, problems, "plug the cable in and run playbooks/fabric.yml again")
        return
    if half_ports:
        yield failed(
            host,
            "half_port",
            f"rail {' and '.join(map(str, half_ports))} of {count} out; with a link: {names}",
            "one interface of a cabled port does not take part, so at most half of the port's bandwidth is available. "
            f"{problems}".strip(),
            "bring that interface up; if it has no link, unplug the cable, wait a few seconds and plug it in again",
        )
    if len(out) > len(half_ports) or len(facts["rails"]) > count:
        yield failed(
            host,
            "rails",
            f"{len(up)} interfaces with a link: {names}; {count} planned",
            f"the cables are not as planned. {problems}".strip(),
            "plug both cables in: a ring takes both ports of every node, port 0 to the next node's port 1"
            if row["kind"] == "ring"
            else f"change the cables, or write `dgx_vllm_fabric_ports: {(len(up) + 1) // 2}`",
        )
    elif problems and not half_ports:
        yield warned(host, "rails", names, problems, "fix it before the next reboot")
    elif not half_ports:
        yield passed(host, "rails", names)


def _speed(host: str, facts: Facts, limits: Limits) -> Iterator[Finding]:
    faults = [
        (
            f"{device['interface']} {device['speed_mbit']} Mb/s",
            f"the link came up below {limits['speed_mbit']} Mb/s",
            "use a cable for 200 Gb/s (QSFP56 or QSFP112) and plug it in firmly; check the speed that ethtool shows at "
            "both ends",
        )
        for device in linked(facts).values()
        if device["speed_mbit"] is not None and device["speed_mbit"] < limits["speed_mbit"]
    ]
    speeds = sorted({str(device["speed_mbit"] or "unknown") for device in linked(facts).values()})
    return _each(host, "speed", f"{', '.join(speeds)} Mb/s", faults)


def _mtu(host: str, facts: Facts, limits: Limits) -> Iterator[Finding]:
    faults = [
        (
            f"{device['interface']} MTU {device['mtu']}",
            f"every rail needs {limits['mtu']}; a restart of the adapter's firmware is known to reset one interface",
            "run site.yml with the tag fabric: it writes the MTU into /etc/netplan/40-cx7.yaml and applies it",
        )
        for device in linked(facts).values()
        if (device["mtu"] or 0) < limits["mtu"]
    ]
    return _each(host, "mtu", f"{limits['mtu']}", faults)


def _addresses(host: str, facts: Facts, row: Mapping[str, Any]) -> Iterator[Finding]:
    faults = [
        (
            f"{device['interface']} has {', '.join(device['addresses']) or 'no address'}",
            f"rail {rail['rail']} is planned as {rail['address']}",
            "run site.yml with the tag fabric",
        )
        for device, rail in _planned(facts, row)
        if rail["address"] not in device["addresses"]
    ]
    return _each(host, "addresses", ", ".join(rail["address"] for rail in row["rails"]), faults)


def _width(host: str, facts: Facts, limits: Limits) -> Iterator[Finding]:
    faults = [
        (
            f"{device['interface']} PCIe x{device['pcie_width']}",
            f"a degraded link: this PCIe function runs at x{device['pcie_width']} instead of x{limits['pcie_width']}, "
            "as old firmware does to the second function of a port, and its bandwidth is reduced",
            "update the adapter's firmware (fwupdmgr or NVIDIA's tool), then switch the machine off and on",
        )
        for device in rail_devices(facts).values()
        if device["pcie_width"] is not None and device["pcie_width"] < limits["pcie_width"]
    ]
    return _each(host, "pcie_width", f"x{limits['pcie_width']}", faults)


def _rdma(host: str, facts: Facts) -> Iterator[Finding]:
    faults = []
    for device in linked(facts).values():
        if not device["rdma"]:
            faults.append(
                (
                    f"{device['interface']} has no RDMA device",
                    "without one NCCL falls back to TCP at a tenth of the bandwidth",
                    "load mlx5_ib (modprobe mlx5_ib) and install rdma-core: site.yml with the tag fabric does both",
                )
            )
        elif "ACTIVE" not in device["rdma_state"]:
            faults.append(
                (
                    f"{device['rdma']} is {device['rdma_state'] or 'in an unknown state'}",
                    "the RDMA port is not active",
                    f"ip link set {device['interface']} up; if it stays so, look for mlx5 in dmesg",
                )
            )
    if not facts["uverbs"]:
        faults.append(
            ("/dev/infiniband is empty", "programs cannot reach the adapter", "modprobe ib_uverbs rdma_ucm")
        )
    return _each(host, "rdma", ", ".join(device["rdma"] for device in linked(facts).values()), faults)


def _gid(host: str, facts: Facts, row: Mapping[str, Any]) -> Iterator[Finding]:
    faults, good = [], []
    for device, rail in _planned(facts, row):
        address = rail["address"].partition("/")[0]
        matching = [gid for gid in device["gids"] if gid["address"] == address]
        version_2 = [gid for gid in matching if gid["type"] == "RoCE v2"]
        good += [f"{device['rdma']}:{gid['index']}" for gid in version_2]
        if device["rdma"] and not version_2:
            faults.append(
                (
                    f"{device['rdma']} has {'only RoCE v1' if matching else 'no GID'} for {address}",
                    "NCCL needs a RoCE v2 entry that holds the rail's IPv4 address",
                    f"remove the address from {device['interface']} and add it again (netplan apply), then look at "
                    f"/sys/class/infiniband/{device['rdma']}/ports/1/gid_attrs/types",
                )
            )
    return _each(host, "gid", ", ".join(good), faults)


def drift(name: str, hosts: Mapping[str, Facts]) -> list[Finding]:
    """What the nodes of a replica must have in common: firmware, and which port of the adapter they use."""
    firmware: dict[str, list[str]] = {}
    ports: dict[str, list[str]] = {}
    for host, facts in hosts.items():
        for device in rail_devices(facts).values():
            if device["firmware"]:
                firmware.setdefault(device["firmware"], []).append(f"{host} {device['interface']}")
        used = sorted({rail["port"] for rail in facts["rails"]})
        ports.setdefault(" and ".join(map(str, used)), []).append(host)
    found = [*_each(name, "firmware", ", ".join(firmware) or "unknown", _firmware(firmware), warned)]
    mixed = "; ".join(f"port {port}: {', '.join(users)}" for port, users in ports.items())
    if len(ports) < 2:
        return [*found, passed(name, "mixed_ports", mixed)]
    return [
        *found,
        warned(
            name,
            "mixed_ports",
            mixed,
            "the cables are in different ports; this works, since names are rendered for each node, but a cable that "
            "is moved to another port changes them",
            "move the cables to the same port on every node, then run site.yml with the tag fabric",
        ),
    ]


def _firmware(firmware: Mapping[str, Sequence[str]]) -> list[Fault]:
    if len(firmware) < 2:
        return []
    text = "; ".join(f"{version} on {', '.join(dict.fromkeys(users))}" for version, users in firmware.items())
    return [
        (
            text,
            "adapters with different firmware behave differently under load, and the older one decides",
            "update all nodes to the newest of these versions and switch them off and on",
        )
    ]
