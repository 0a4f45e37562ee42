"""Checks of what was measured between nodes: large pings and ib_write_bw. Each cause has its own sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding, failed, passed
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import Limits
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import Facts, rail_devices

Hosts = Mapping[str, Facts]
Measured = Mapping[str, Any]
Link = Mapping[str, Any]

_INSTALL = "run site.yml with the tag fabric, which installs what the gate needs"
_NO_RESULT = ("there is no result for this link", "run playbooks/fabric.yml again")


def link_findings(
    hosts: Hosts, links: Sequence[Link], measured: Mapping[str, Sequence[Measured]], limits: Limits
) -> list[Finding]:
    """Cabling, large pings and bandwidth of every link, and the bandwidth of every pair's port."""
    found: list[Finding] = []
    pings, bandwidth = measured.get("pings") or [], measured.get("bandwidth") or []
    ports: dict[tuple[str, str, int], list[Link]] = {}
    for link in links:
        wrong_end = swapped(hosts, link, pings)
        found += [wrong_end] if wrong_end else []
        found.append(_ping(hosts, link, pings, limits, wrong_end))
        if limits["rdma"]:
            passes = all(ping["ok"] for ping in _of(pings, link))
            found.append(_bandwidth(hosts, link, bandwidth, limits, passes))
        ports.setdefault((str(link["a"]), str(link["b"]), int(link["a_rail"]) // 2), []).append(link)
    for (a, b, port), rails in ports.items():
        slowest = [
            min((float(one["gbits"]) for one in _of(bandwidth, rail) if one.get("gbits")), default=0.0)
            for rail in rails
        ]
        if limits["rdma"] and all(slowest):
            found.append(_port(f"{a} - {b} port {port}", slowest, limits))
    return found


def swapped(hosts: Hosts, link: Link, pings: Sequence[Measured]) -> Finding | None:
    """A failure if the neighbour's MAC address belongs to another rail than the link's; None if it is as planned."""
    for ping in _of(pings, link):
        mac = str(ping.get("peer_mac") or "").lower()
        peer, to_rail = ping["to"], ping.get("to_rail", ping["rail"])
        for host, facts in hosts.items():
            for number, device in rail_devices(facts).items():
                if not mac or device["mac"] != mac or (host, number) == (peer, to_rail):
                    continue
                expected = rail_devices(hosts[peer]).get(to_rail) if peer in hosts else None
                if host == peer and expected and device["twin"] == expected["interface"]:
                    return _other_half(link, ping, device, expected)
                return _cabling(
                    link, f"rail {ping['rail']} of {ping['from']} arrives at rail {number} of {host}"
                )
    return None


def _other_half(
    link: Link, ping: Measured, device: Mapping[str, Any], expected: Mapping[str, Any]
) -> Finding:
    names = f"{device['interface']} and {expected['interface']}"
    return failed(
        _where(link),
        "other_half",
        f"{device['interface']} of {ping['to']} answers for the address of {expected['interface']}",
        "the cables are right: both halves of a port are on one Ethernet segment, and the kernel answers ARP on "
        "either, so RoCE sends the packets of both rails to one half",
        "run site.yml with the tag fabric; if you manage the addresses, set net.ipv4.conf.NAME.arp_ignore=1 and "
        f"net.ipv4.conf.NAME.arp_announce=2 for {names} on {ping['to']}",
    )


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


def _devices(hosts: Hosts, link: Link) -> Iterator[tuple[str, int, Mapping[str, Any] | None]]:
    """Host, rail and device of both ends; no device if the host does not show it."""
    for host, rail in ((link["a"], int(link["a_rail"])), (link["b"], int(link["b_rail"]))):
        yield host, rail, rail_devices(hosts[host]).get(rail) if host in hosts else None


def _small_mtu(hosts: Hosts, link: Link, limits: Limits) -> list[str]:
    return [
        f"{host} {device['interface']} has MTU {device['mtu']}"
        for host, _, device in _devices(hosts, link)
        if device is not None and (device["mtu"] or 0) < limits["mtu"]
    ]


def _without_link(hosts: Hosts, link: Link) -> tuple[str, str] | None:
    """Reason and remedy for an end that has no link; None if both have one."""
    for host, rail, device in _devices(hosts, link):
        if device is None:
            return f"{host} has no rail {rail} now", f"see the check rails of {host}"
        if not device["carrier"]:
            return f"{host} {device['interface']} has no link", "plug the cable in at both ends"
    return None


def _cabling(link: Link, wrong_end: str) -> Finding:
    return failed(
        _where(link),
        "swapped_cables",
        wrong_end,
        "the cables are swapped at one end: each reaches the other port of the peer, so the rails' subnets do not meet",
        f"exchange the two cables at {link['b']}",
    )


def _ping(
    hosts: Hosts, link: Link, pings: Sequence[Measured], limits: Limits, wrong_end: Finding | None
) -> Finding:
    where, check, results = _where(link), "jumbo_ping", _of(pings, link)
    if not results:
        return failed(where, check, "not measured", *(_without_link(hosts, link) or _NO_RESULT))
    bad = next((ping for ping in results if not ping["ok"]), None)
    if bad is None:
        return passed(where, check, f"{max(ping.get('rtt_ms') or 0.0 for ping in results):.2f} ms")
    if bad.get("error"):
        return failed(where, check, "not measured", f"{bad['from']}: {bad['error']}", _INSTALL)
    found = f"{bad['received']} of {bad['sent']} answers from {bad['from']}"
    return failed(where, check, found, *_unanswered(hosts, link, bad, limits, wrong_end))


def _unanswered(
    hosts: Hosts, link: Link, ping: Measured, limits: Limits, wrong_end: Finding | None
) -> tuple[str, str]:
    """Reason and remedy for a large ping without an answer."""
    out, small = _without_link(hosts, link), _small_mtu(hosts, link, limits)
    if out:
        return out
    if small or ping.get("limited_by") == "local":
        text = " and ".join(small) or f"{ping['from']} sends at most {ping.get('mtu')} bytes"
        return (
            f"MTU: {text}, so packets of {limits['mtu']} bytes do not pass",
            "see the check mtu of that node",
        )
    if ping.get("limited_by") == "path" or ping.get("plain_ok"):
        return (
            f"MTU on the path: small packets pass but packets of {limits['mtu']} bytes do not, although both ends are "
            "set correctly",
            f"set the switch's MTU to {int(limits['mtu']) + 216} or more on these ports",
        )
    if wrong_end:
        return f"no answer: {wrong_end.found}", f"see the check {wrong_end.check}"
    return (
        "no answer at all, although both ends have a link",
        "check that both ends are on the same cable or in the same VLAN of the switch, and that no firewall drops ICMP",
    )


def _bandwidth(
    hosts: Hosts, link: Link, bandwidth: Sequence[Measured], limits: Limits, passes: bool
) -> Finding:
    where, check, results = _where(link), "bandwidth", _of(bandwidth, link)
    if not results and passes:
        return failed(where, check, "not measured", *_NO_RESULT)
    if not results:
        return failed(
            where,
            check,
            "not measured",
            "it is measured only if large packets pass",
            "see the check jumbo_ping of this link",
        )
    broken = next((one for one in results if one.get("gbits") is None), None)
    if broken is not None:
        return failed(
            where,
            check,
            "no result",
            f"ib_write_bw on {broken['from']}: {broken.get('error') or 'for an unknown reason'}",
            "fix what the checks rdma, gid and jumbo_ping of this link report, then run again",
        )
    value = min(float(one["gbits"]) for one in results)
    if value >= limits["rail_gbits"]:
        return passed(where, check, f"{value:.1f} Gb/s")
    return failed(where, check, f"{value:.1f} Gb/s", *_slow(hosts, link, value, limits))


def _slow(hosts: Hosts, link: Link, value: float, limits: Limits) -> tuple[str, str]:
    """Reason and remedy for a link whose bandwidth is below its limit."""
    small = _small_mtu(hosts, link, limits)
    if small:
        return (
            f"MTU: {' and '.join(small)}, and small packets cost bandwidth",
            "see the check mtu of that node",
        )
    for host, _, device in _devices(hosts, link):
        width = device["pcie_width"] if device is not None else None
        if device is not None and width is not None and width < limits["pcie_width"]:
            return (
                f"degraded link: {host} {device['interface']} runs at PCIe x{width}",
                "see the check pcie_width of that node",
            )
    if value < limits["degraded_gbits"]:
        return (
            f"below {limits['degraded_gbits']:g} Gb/s although MTU, PCIe width and link are right: users saw about "
            "13 Gb/s on degraded hardware",
            "switch both machines off and unplug them for a minute, then try another cable and the other port; if it "
            "stays so, have the machine replaced",
        )
    return (
        f"below {limits['rail_gbits']:g} Gb/s although MTU, PCIe width and link are right",
        "run it again on idle machines (a loaded model takes bandwidth), then compare firmware and try another cable",
    )


def _port(where: str, rails: Sequence[float], limits: Limits) -> Finding:
    """`rails` has the bandwidth in Gb/s of each of the port's interfaces that is a rail."""
    total, check = sum(rails), "port_bandwidth"
    found = f"{' + '.join(f'{value:.1f}' for value in rails)} = {total:.1f} Gb/s"
    if len(rails) < 2:
        return failed(
            where,
            check,
            found,
            "only one of the port's two interfaces is a rail, so at most half of its bandwidth is available",
            "give both interfaces an address, each on a subnet of its own",
        )
    if total < limits["port_gbits"]:
        return failed(
            where,
            check,
            found,
            f"the port's two interfaces together stay below {limits['port_gbits']:g} Gb/s",
            "see the check bandwidth of the slower rail",
        )
    return passed(where, check, found)
