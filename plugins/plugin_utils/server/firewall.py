"""Which connections the nodes of a replica and its clients may open; templates/firewall.nft.j2 prints it.

Only new TCP connections are judged: nothing that is open breaks, and no connection tracking is needed. RDMA passes
below the kernel's filter, where no rule sees it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import Row

CHOSEN = "32768-60999"
"""Ports that vLLM, Gloo and NCCL choose at start (the kernel's default of net.ipv4.ip_local_port_range)."""


def rules(planned: Mapping[str, Any], host: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of the template, of which `api` is {} if nothing guards it.

    `planned` is the plan; `settings` has `ssh_port`, `host`, `api_from`, `readers`.
    """
    row = planned["hosts"][host]
    return {
        "ssh": sorted({22, int(settings["ssh_port"])}),
        "peers": _peers(planned, row),
        "readers": _networks(settings["readers"], 4),
        "watch_port": row["watch_port"],
        "ports": _ports(row),
        "rails": list(row["addresses"]),
        "chosen": CHOSEN,
        "api": _api(row, str(settings["host"]), settings["api_from"]) if row["is_head"] else {},
    }


def _peers(planned: Mapping[str, Any], row: Row) -> list[str]:
    """Every address from which another node of the replica comes: its rails, and in a ring its management address."""
    found = [
        address
        for peer in row["peers"]
        for address in (*planned["hosts"][peer]["addresses"], row["peer_addresses"][peer])
    ]
    return [str(one) for one in sorted({ipaddress.ip_address(address) for address in found})]


def _ports(row: Row) -> list[str]:
    """The ports that are known before the start, those of the head only there."""
    head = bool(row["is_head"])
    ports = [str(row["watch_port"]), *([str(row["master_port"])] if head else [])]
    if row["executor"] == "ray":
        ray = row["ray"]
        ports += [str(port) for name, port in ray["ports"].items() if head or name != "ray_client_server"]
        ports += [str(ray["port"]), str(ray["dashboard_port"])] if head else []
        ports.append("-".join(map(str, ray["worker_ports"])))
    return sorted(ports, key=lambda port: int(port.partition("-")[0]))


def _api(row: Row, host: str, sources: Iterable[str]) -> dict[str, Any]:
    """Who may reach the API's port: `port`, `sources` (matches of nft) and `at` (one if it listens at one address)."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        address = None
    if address is not None and address.is_loopback:
        return {}
    at = "" if address is None or address.is_unspecified else f"{_family(address)} daddr {address} "
    return {"port": int(row["port"]), "sources": _matches(sources), "at": at}


def _family(one: Any) -> str:
    return "ip" if one.version == 4 else "ip6"


def _matches(sources: Iterable[str]) -> list[str]:
    """One match per family; nft has no set that holds a whole family or two networks that overlap."""
    matches = []
    for version, family in ((4, "ip"), (6, "ip6")):
        merged = _networks(sources, version)
        if any(network.endswith("/0") for network in merged):
            matches.append(f"meta nfproto ipv{version}")
        elif merged:
            matches.append(f"{family} saddr {{ {', '.join(merged)} }}")
    return matches


def _networks(sources: Iterable[str], version: int) -> list[str]:
    """The networks of one version, none inside another."""
    networks = [ipaddress.ip_network(str(source), strict=False) for source in sources]
    own: list[Any] = [network for network in networks if network.version == version]
    return [str(network) for network in ipaddress.collapse_addresses(own)]
