"""Addresses of the rails, planned from one network prefix, and the rules that given ones must follow.

A rail is one half of a ConnectX-7 port. Two halves on one subnet make the kernel answer and send on either of
them, so every rail of a node has a subnet of its own (NVIDIA's playbooks for DGX Spark do the same).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

HALVES = 2
"""PCIe halves of one ConnectX-7 port of a GB10 machine; each is a network interface and an RDMA device."""

MAX_PORTS = 2
MAX_RING = 8

_SHARED_BITS = 2
"""A prefix is always cut into 4 subnets (2 ports of 2 halves), used or not: a second cable moves no address."""

_RING_BITS = 4
"""8 links of 2 halves."""


class AddressError(ValueError):
    """A prefix or an address that cannot be used; the text is a sentence for the operator."""


@lru_cache(maxsize=4096)
def _interface(address: str) -> ipaddress.IPv4Interface:
    return ipaddress.IPv4Interface(address)


class Rail(NamedTuple):
    """One half-port with its address: `port` 0 or 1, `half` 0 or 1, address and length as in 198.51.100.1/26."""

    rail: int
    port: int
    half: int
    address: str

    @property
    def interface(self) -> ipaddress.IPv4Interface:
        """The address with its network."""
        return _interface(self.address)


class Link(NamedTuple):
    """Two half-ports in one subnet, so of one cable or one switch."""

    a: str
    a_rail: int
    b: str
    b_rail: int


def read_prefix(text: str) -> ipaddress.IPv4Network:
    """The network of a prefix such as 198.51.100.0/24."""
    try:
        return ipaddress.IPv4Network(str(text))
    except ValueError as error:
        raise AddressError(
            f"dgx_vllm_fabric_prefix is {str(text)!r} ({error}); give it an IPv4 network such as "
            "198.51.100.0/24."
        ) from None


def _subnets(prefix: str, bits: int, hosts: int) -> list[ipaddress.IPv4Network]:
    network = read_prefix(prefix)
    length = network.prefixlen + bits
    if length > 30 or 2 ** (32 - length) - 2 < hosts:
        needed = 32 - bits - (hosts + 1).bit_length()
        raise AddressError(
            f"dgx_vllm_fabric_prefix {network} is too small: cut into {2**bits} subnets it holds fewer than "
            f"{hosts} nodes; "
            f"give it a /{needed} or larger."
        )
    return list(network.subnets(prefixlen_diff=bits))


def _numbered(subnet: ipaddress.IPv4Network, number: int) -> str:
    return f"{subnet.network_address + number}/{subnet.prefixlen}"


def plan_shared(prefix: str, index: int, ports: int = 1) -> list[str]:
    """Addresses of node number `index` (from 0) on `ports` ports that meet all other nodes: a cable, or a switch.

    Rail r lies in the r-th quarter of the prefix and the node's number in it is index + 1, so nothing but the
    prefix and the index decides. Which index a node has says `indexes`.
    """
    subnets = _subnets(prefix, _SHARED_BITS, index + 1)
    return [_numbered(subnet, index + 1) for subnet in subnets[: HALVES * ports]]


def plan_ring(prefix: str, rank: int, size: int) -> list[str]:
    """Addresses of node `rank` in a ring of `size`: port 0 goes to the next node's port 1.

    The link that closes the ring has the first two subnets whatever the size, and link k (rank k to k + 1) the
    k-th two after them: a node put in at the end changes only the port that is re-cabled.
    """
    subnets = _subnets(prefix, _RING_BITS, MAX_RING)

    def slot(link: int) -> int:
        return 0 if link == size - 1 else link + 1

    links = (slot(rank), slot((rank - 1) % size))
    return [_numbered(subnets[HALVES * link + half], rank + 1) for link in links for half in range(HALVES)]


def indexes(wanted: Mapping[str, int | None]) -> dict[str, int]:
    """Host -> number in its prefix: the wanted one, or the smallest free one in the order of `wanted`.

    A host that is put in or taken out moves those without a wanted number that come after it, and none before it.
    """
    taken = {index for index in wanted.values() if index is not None}
    found: dict[str, int] = {}
    following = 0
    for host, index in wanted.items():
        if index is None:
            while following in taken:
                following += 1
            index = following
            taken.add(index)
        found[host] = index
    return found


def as_rails(addresses: Sequence[str]) -> list[Rail]:
    """Addresses in the order of the rails: port 0 first, its first half first."""
    return [
        Rail(number, number // HALVES, number % HALVES, address) for number, address in enumerate(addresses)
    ]


def links(rails: Mapping[str, Sequence[Rail]]) -> list[Link]:
    """Every two half-ports of different nodes that share a subnet, in the order of the hosts and rails."""
    networks = {host: [(rail.rail, rail.interface.network) for rail in own] for host, own in rails.items()}
    return [
        Link(a, left, b, right)
        for a, b in combinations(rails, 2)
        for left, ours in networks[a]
        for right, theirs in networks[b]
        if ours == theirs
    ]


def read_address(text: str) -> str:
    """An address with its length, normalised."""
    value = str(text).strip()
    try:
        interface = ipaddress.IPv4Interface(value)
    except ValueError:
        raise AddressError(
            f"{value!r} is no IPv4 address with a length; write it as 198.51.100.1/26."
        ) from None
    network = interface.network
    if "/" not in value or network.prefixlen > 30:
        raise AddressError(
            f"{value!r} has no room for a peer in its subnet; write the length too, as 198.51.100.1/26."
        )
    if interface.ip in (network.network_address, network.broadcast_address):
        raise AddressError(
            f"{value!r} is the subnet's own or its broadcast address; take another one of {network}."
        )
    return str(interface)


def is_address(text: str) -> bool:
    """Whether `text` is an IP address and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
