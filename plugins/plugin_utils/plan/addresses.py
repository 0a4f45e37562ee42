"""Addresses of the rails, planned from one network prefix, and the rules that given addresses must follow.

A rail is one PCIe function of a ConnectX-7 port. With two of them on one subnet the kernel answers and sends on
either, so every rail of a node has its own subnet (NVIDIA's playbooks for DGX Spark do the same).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations, count
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import setting_table as table

FUNCTIONS_PER_PORT = 2
"""PCIe functions of a ConnectX-7 port of a GB10 machine; each is a network interface and an RDMA device."""

MAX_PORTS = 2
MAX_RING = 8

_SHARED_BITS = 2
"""A prefix is always cut into 4 subnets (2 ports of 2 functions), used or not: a second cable moves no address."""

_RING_BITS = 4
"""8 links of 2 functions, so 16 subnets."""


class AddressError(ValueError):
    """A prefix or an address that cannot be used; the message is a sentence for the operator."""


@lru_cache(maxsize=4096)
def _interface(address: str) -> ipaddress.IPv4Interface:
    return ipaddress.IPv4Interface(address)


class Rail(NamedTuple):
    """One PCIe function (`half` 0 or 1) of a port (0 or 1), with address and prefix length as in 198.51.100.1/26."""

    rail: int
    port: int
    half: int
    address: str

    @property
    def interface(self) -> ipaddress.IPv4Interface:
        """The address with its network."""
        return _interface(self.address)


class Link(NamedTuple):
    """Two rails in one subnet, so on one cable or one switch."""

    a: str
    a_rail: int
    b: str
    b_rail: int


LARGEST_PREFIX = 8
_LARGEST_FLEET = 16
"""Length of a prefix whose subnets hold 16,000 nodes: whoever needs more has mistyped an index."""
_OWN = [
    ipaddress.IPv4Network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        *("169.254.0.0/16", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15"),
    )
]
"""RFC 1918 and 6598, link-local, and what RFC 5737 and 2544 keep for documentation and measurements."""
_NEVER = [ipaddress.IPv4Network(network) for network in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")]
"""This host, loopback, and multicast with what is reserved after it."""


def own_network(address: str) -> bool:
    """Whether an address with its prefix length is in a network that nobody owns."""
    network = ipaddress.IPv4Interface(address).network
    return any(network.subnet_of(own) for own in _OWN)


def _never(network: ipaddress.IPv4Network) -> bool:
    return any(network.overlaps(other) for other in _NEVER)


def read_prefix(text: str) -> ipaddress.IPv4Network:
    """The network of a prefix such as 198.51.100.0/24."""
    try:
        network = ipaddress.IPv4Network(str(text))
    except ValueError as error:
        raise AddressError(
            f"dgx_vllm_fabric_prefix is {str(text)!r} ({error}); write an IPv4 network, such as 198.51.100.0/24."
        ) from None
    if network.prefixlen < LARGEST_PREFIX:
        raise AddressError(
            f"dgx_vllm_fabric_prefix {network} is larger than a /{LARGEST_PREFIX}, and all of it would go into the "
            "cable; write a network of your own, such as 198.51.100.0/24."
        )
    if _never(network):
        raise AddressError(
            f"dgx_vllm_fabric_prefix {network} holds loopback, multicast or reserved addresses, which no interface can "
            "have; write a network of your own, such as 198.51.100.0/24."
        )
    return network


def _subnets(prefix: str, bits: int, hosts: int) -> list[ipaddress.IPv4Network]:
    network = read_prefix(prefix)
    length = network.prefixlen + bits
    if length > 30 or 2 ** (32 - length) - 2 < hosts:
        needed = 32 - bits - (hosts + 1).bit_length()
        if needed < _LARGEST_FLEET:
            raise AddressError(
                f"node number {hosts - 1} has no room in any dgx_vllm_fabric_prefix; give it a dgx_vllm_fabric_index "
                f"below {max(0, 2 ** (32 - length) - 2)}, which {network} has room for."
            )
        raise AddressError(
            f"dgx_vllm_fabric_prefix {network} is too small: its {2**bits} subnets hold fewer than {hosts} nodes; "
            f"use a /{needed} or larger."
        )
    return list(network.subnets(prefixlen_diff=bits))


def _numbered(subnet: ipaddress.IPv4Network, number: int) -> str:
    return f"{subnet.network_address + number}/{subnet.prefixlen}"


def plan_shared(prefix: str, index: int, ports: int = 1) -> list[str]:
    """Addresses of node number `index` (from 0) on `ports` ports that reach all other nodes, over a cable or a switch.

    Rail r is in the r-th quarter of the prefix and the node's number there is index + 1: only the prefix and the index
    (see `indexes`) decide.
    """
    subnets = _subnets(prefix, _SHARED_BITS, index + 1)
    return [_numbered(subnet, index + 1) for subnet in subnets[: FUNCTIONS_PER_PORT * ports]]


def plan_ring(prefix: str, rank: int, size: int) -> list[str]:
    """Addresses of node `rank` in a ring of `size`: port 0 goes to the next node's port 1.

    The link that closes the ring has the first two subnets whatever the size, and link k (rank k to k + 1) the
    k-th two after them: a node added at the end changes only the port that is re-cabled.
    """
    subnets = _subnets(prefix, _RING_BITS, MAX_RING)
    if size > MAX_RING:
        return []

    def slot(link: int) -> int:
        return 0 if link == size - 1 else link + 1

    links = (slot(rank), slot((rank - 1) % size))
    return [
        _numbered(subnets[FUNCTIONS_PER_PORT * link + half], rank + 1)
        for link in links
        for half in range(FUNCTIONS_PER_PORT)
    ]


def indexes(given: Mapping[str, int | None]) -> dict[str, int]:
    """Host -> number in its prefix: the given one, or the smallest free one in the order of `given`.

    Adding or removing a host moves those after it that have no given number, and none before it.
    """
    taken = {index for index in given.values() if index is not None}
    free = (index for index in count() if index not in taken)
    return {host: next(free) if index is None else index for host, index in given.items()}


def as_rails(addresses: Sequence[str]) -> list[Rail]:
    """Addresses in the order of the rails: port 0 first, its first function first."""
    return [
        Rail(number, number // FUNCTIONS_PER_PORT, number % FUNCTIONS_PER_PORT, address)
        for number, address in enumerate(addresses)
    ]


def links(rails: Mapping[str, Sequence[Rail]]) -> list[Link]:
    """Every two rails of different nodes that share a subnet, in the order of the hosts and rails."""
    networks = {host: [(rail.rail, rail.interface.network) for rail in own] for host, own in rails.items()}
    return [
        Link(a, left, b, right)
        for a, b in combinations(rails, 2)
        for left, ours in networks[a]
        for right, theirs in networks[b]
        if ours == theirs
    ]


def read_address(text: Any) -> str:
    """An address with its prefix length, normalised."""
    value = text.strip() if isinstance(text, str) else table.shown(text)
    try:
        interface = ipaddress.IPv4Interface(value)
    except ValueError:
        raise AddressError(
            f"{value!r} is not an IPv4 address with a prefix length; write it as 198.51.100.1/26."
        ) from None
    network = interface.network
    if "/" not in value or network.prefixlen > 30:
        raise AddressError(
            f"{value!r} has no room for a peer in its subnet; write the prefix length too, as 198.51.100.1/26."
        )
    if network.prefixlen < LARGEST_PREFIX or _never(network):
        raise AddressError(
            f"{value!r} is in a network larger than a /{LARGEST_PREFIX}, or with loopback, multicast or reserved "
            "addresses; use an address of your own network, such as 198.51.100.1/26."
        )
    if interface.ip in (network.network_address, network.broadcast_address):
        raise AddressError(
            f"{value!r} is the subnet's own or its broadcast address; use another address of {network}."
        )
    return str(interface)


def is_address(text: str) -> bool:
    """Whether `text` is an IP address and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
