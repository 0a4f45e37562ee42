"""Checks of what was measured between nodes: large pings, ib_write_bw, NCCL. Each cause has its own sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import Limits
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import (
    Facts,
    Finding,
    rail_devices,
)

Hosts = Mapping[str, Facts]
Measured = Mapping[str, Any]
Link = Mapping[str, Any]

_INSTALL = "run site.yml with the tag fabric, which installs what the gate needs"


def _where(link: Link) -> str:
    a, b = int(link["a_rail"]), int(link["b_rail"])
    rails = f"rail {a}" if a == b else f"rails {a} and {b}"
    return f"{link['a']} - {link['b']} {rails}"


def _of(measured: Sequence[Measured], link: Link) -> list[Measured]:
    """The measurements of a link, in both directions."""
    a, b = (link["a"], link["a_rail"]), (link["b"], link["b_rail"])
    ends = ((a, b), (b, a))
    return [
        one
        for one in measured
        if ((one["from"], one["rail"]), (one["to"], one.get("to_rail", one["rail"]))) in ends
    ]


def _device(hosts: Hosts, host: str, rail: int) -> Mapping[str, Any] | None:
    return rail_devices(hosts[host]).get(rail) if host in hosts else None


def _small_mtu(hosts: Hosts, link: Link, limits: Limits) -> list[str]:
    found = []
    for host, rail in ((link["a"], link["a_rail"]), (link["b"], link["b_rail"])):
        one = _device(hosts, host, int(rail))
        if one is not None and (one["mtu"] or 0) < limits["mtu"]:
            found.append(f"{host} {one['interface']} has MTU {one['mtu']}")
    return found


def swapped(hosts: Hosts, link: Link, pings: Sequence[Measured]) -> str:
    """Where the packets of a link really arrive, when the neighbour's MAC belongs to another of its rails; else ''."""
    for one in _of(pings, link):
        mac = str(one.get("peer_mac") or "").lower()
        for host, facts in hosts.items():
            for number, device in rail_devices(facts).items():
                expected = (one["to"], one.get("to_rail", one["rail"]))
                if mac and device["mac"] == mac and (host, number) != expected:
                    return f"rail {one['rail']} of {one['from']} arrives at rail {number} of {host}"
    return ""


def link_findings(
    hosts: Hosts, links: Sequence[Link], measured: Mapping[str, Sequence[Measured]], limits: Limits
) -> list[Finding]:
    """Cabling, large pings and bandwidth of every link, and the bandwidth of every pair's port."""
    found: list[Finding] = []
    pings, bandwidth = measured.get("pings") or [], measured.get("bandwidth") or []
    ports: dict[tuple[str, str, int], list[Link]] = {}
    for link in links:
        wrong_end = swapped(hosts, link, pings)
        if wrong_end:
            found.append(_cabling(link, wrong_end))
        found += _ping(hosts, link, pings, limits, bool(wrong_end))
        if limits["rdma"]:
            found += _bandwidth(hosts, link, bandwidth, limits, all(one["ok"] for one in _of(pings, link)))
        ports.setdefault((str(link["a"]), str(link["b"]), int(link["a_rail"]) // 2), []).append(link)
    for (a, b, port), halves in ports.items():
        slowest = [
            min((float(one["gbits"]) for one in _of(bandwidth, half) if one.get("gbits")), default=0.0)
            for half in halves
        ]
        if limits["rdma"] and all(slowest):
            found += _port(f"{a} - {b} port {port}", slowest, limits)
    return found


def _cabling(link: Link, wrong_end: str) -> Finding:
    return Finding(
        _where(link),
        "swapped_cables",
        "fail",
        wrong_end,
        "the cables are swapped at one end: each reaches the other port of the peer, and the rails' subnets "
        "do not meet",
        f"exchange the two cables at {link['b']}",
    )


def _ping(
    hosts: Hosts, link: Link, pings: Sequence[Measured], limits: Limits, wrong_end: bool
) -> Iterator[Finding]:
    where, results = _where(link), _of(pings, link)
    out = _out(hosts, link)
    if not results:
        reason, remedy = out or ("no result came back for this link", "run playbooks/fabric.yml again")
        yield Finding(where, "jumbo_ping", "fail", "not measured", reason, remedy)
        return
    bad = next((one for one in results if not one["ok"]), None)
    if bad is None:
        slowest = max((one.get("rtt_ms") or 0.0 for one in results), default=0.0)
        yield Finding(where, "jumbo_ping", "pass", f"{slowest:.2f} ms", "", "")
        return
    if bad.get("error"):
        yield Finding(where, "jumbo_ping", "fail", "not measured", f"{bad['from']}: {bad['error']}", _INSTALL)
        return
    found = f"{bad['received']} of {bad['sent']} answers from {bad['from']}"
    small = _small_mtu(hosts, link, limits)
    if out:
        reason, remedy = out
    elif small or bad.get("limited_by") == "local":
        text = " and ".join(small) or f"{bad['from']} sends at most {bad.get('mtu')} bytes"
        reason, remedy = (
            f"MTU: {text}, so packets of {limits['mtu']} bytes do not pass",
            "see the check mtu of that node",
        )
    elif bad.get("limited_by") == "path" or bad.get("plain_ok"):
        reason = (
            f"MTU on the way: small packets pass and packets of {limits['mtu']} bytes do not, "
            "and both ends are set right"
        )
        remedy = f"set the switch's MTU to {int(limits['mtu']) + 216} or more on these ports"
    elif wrong_end:
        reason, remedy = "no answer, because the cables are swapped", "see the check swapped_cables"
    else:
        reason, remedy = (
            "no answer at all, although both ends have a link",
            "check that both ends are on the same cable or in the same VLAN of the switch, and that no "
            "firewall drops ICMP",
        )
    yield Finding(where, "jumbo_ping", "fail", found, reason, remedy)


def _out(hosts: Hosts, link: Link) -> tuple[str, str] | None:
    """Reason and remedy for the end of a link that is out; None when both are there."""
    for host, rail in ((link["a"], link["a_rail"]), (link["b"], link["b_rail"])):
        one = _device(hosts, host, int(rail))
        if one is None:
            return f"{host} has no rail {rail} now", f"see the check rails of {host}"
        if not one["carrier"]:
            return f"{host} {one['interface']} has no link", "put the cable in at both ends"
    return None


def _bandwidth(
    hosts: Hosts, link: Link, bandwidth: Sequence[Measured], limits: Limits, passes: bool
) -> Iterator[Finding]:
    where, results = _where(link), _of(bandwidth, link)
    if not results:
        reason, remedy = (
            ("no result came back for this link", "run playbooks/fabric.yml again")
            if passes
            else ("it is only measured where large packets pass", "see the check jumbo_ping of this link")
        )
        yield Finding(where, "bandwidth", "fail", "not measured", reason, remedy)
        return
    failed = next((one for one in results if one.get("gbits") is None), None)
    if failed is not None:
        yield Finding(
            where,
            "bandwidth",
            "fail",
            "no figure",
            f"ib_write_bw on {failed['from']}: {failed.get('error') or 'for an unknown reason'}",
            "mend what the checks rdma, gid and jumbo_ping of this link say, then run again",
        )
        return
    slowest = min(results, key=lambda one: float(one["gbits"]))
    value, found = float(slowest["gbits"]), f"{float(slowest['gbits']):.1f} Gb/s"
    if value >= limits["rail_gbits"]:
        yield Finding(where, "bandwidth", "pass", found, "", "")
        return
    reason, remedy = _slow(hosts, link, value, limits)
    yield Finding(where, "bandwidth", "fail", found, reason, remedy)


def _slow(hosts: Hosts, link: Link, value: float, limits: Limits) -> tuple[str, str]:
    small = _small_mtu(hosts, link, limits)
    if small:
        return (
            f"MTU: {' and '.join(small)}, and small packets cost bandwidth",
            "see the check mtu of that node",
        )
    for host, rail in ((link["a"], link["a_rail"]), (link["b"], link["b_rail"])):
        one = _device(hosts, host, int(rail))
        if one is not None and one["pcie_width"] is not None and one["pcie_width"] < limits["pcie_width"]:
            return (
                f"degraded link: {host} {one['interface']} hangs on PCIe x{one['pcie_width']}",
                "see the check pcie_width of that node",
            )
    if value < limits["degraded_gbits"]:
        return (
            f"below {limits['degraded_gbits']:g} Gb/s with MTU, PCIe width and link right: users saw about "
            "13 Gb/s on "
            "degraded hardware",
            "switch both machines off, take their mains plugs out for a minute, try another cable and the "
            "other port; "
            "if it stays so, have the machine exchanged",
        )
    return (
        f"below {limits['rail_gbits']:g} Gb/s with MTU, PCIe width and link right",
        "run it again on idle machines (a loaded model takes bandwidth), then compare firmware and try "
        "another cable",
    )


def _port(where: str, halves: Sequence[float], limits: Limits) -> Iterator[Finding]:
    total = sum(halves)
    found = f"{' + '.join(f'{value:.1f}' for value in halves)} = {total:.1f} Gb/s"
    if len(halves) < 2:
        yield Finding(
            where,
            "port_bandwidth",
            "fail",
            found,
            "half a port: one half carries everything, and the port's other half is no rail",
            "give both halves an address on a subnet of their own",
        )
    elif total < limits["port_gbits"]:
        yield Finding(
            where,
            "port_bandwidth",
            "fail",
            found,
            f"the two halves together stay below {limits['port_gbits']:g} Gb/s",
            "see the check bandwidth of the slower rail",
        )
    else:
        yield Finding(where, "port_bandwidth", "pass", found, "", "")


def nccl_findings(name: str, hosts: Hosts, result: Mapping[str, Any] | None, limits: Limits) -> list[Finding]:
    """The all-gather from inside the image: transport, devices used, bus bandwidth."""
    if not result:
        return []
    transport, busbw = result.get("transport") or "", result.get("busbw_gbytes")
    found = f"{busbw:g} GB/s over {transport or 'an unknown transport'}" if busbw is not None else "no figure"
    halves = max((len(facts["rails"]) for facts in hosts.values()), default=0)
    used = list(result.get("devices") or [])
    if transport == "Socket":
        return [
            Finding(
                name,
                "nccl",
                "fail",
                found,
                "TCP fallback: NCCL uses sockets instead of RDMA",
                "check that the container has /dev/infiniband, IPC_LOCK and unlimited memlock, that "
                "NCCL_IB_DISABLE is 0 and "
                "NCCL_IB_HCA names this node's devices",
            )
        ]
    if used and len(used) < halves:
        return [
            Finding(
                name,
                "nccl",
                "fail",
                f"{found}, devices {', '.join(used)}",
                f"half a port: NCCL uses {len(used)} of {halves} half-ports",
                "let NCCL_IB_HCA name all of them: site.yml with the tag service renders it anew",
            )
        ]
    if busbw is None:
        return [
            Finding(
                name,
                "nccl",
                "fail",
                found,
                f"the all-gather ended without a result; {result.get('error') or 'it said nothing'}",
                "mend what it says; the variables are those of the server's environment file",
            )
        ]
    if busbw >= limits["busbw_gbytes"]:
        return [Finding(name, "nccl", "pass", found, "", "")]
    cause = (
        f"below {limits['tcp_busbw_gbytes']:g} GB/s, which one half-port, MTU 1500 or TCP give"
        if busbw <= limits["tcp_busbw_gbytes"]
        else f"below {limits['busbw_gbytes']:g} GB/s, although each rail is measured by itself"
    )
    return [
        Finding(
            name,
            "nccl",
            "fail",
            found,
            cause,
            "run it with NCCL_DEBUG=INFO: `Using network` must say IB and `NET/IB : Using` must list every "
            "half-port",
        )
    ]
