"""The rails' netplan file. Written by hand, so that the text is the same on every controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PATH = "/etc/netplan/40-cx7.yaml"
MODE = "0600"
HEADER = "# Written by the role dgx_vllm: the rails of the ConnectX-7 fabric. Changes here are lost on its next run."


class NetplanError(ValueError):
    """Rails that cannot be written; the text is a sentence for the operator."""


def render(
    rails: Sequence[Mapping[str, Any]],
    addresses: Sequence[str],
    management: Sequence[str] = (),
    mtu: int = 9000,
) -> str:
    """netplan YAML for the rails (`interface` each) and their addresses, both in the order of the rails.

    No link-local addresses: an IPv6 one would take the place of the IPv4 address in the GID table. `optional`
    lets the machine boot without waiting for a cable. Nothing names a gateway or a resolver.
    """
    names = [str(rail["interface"]) for rail in rails]
    if len(names) != len(addresses):
        raise NetplanError(
            f"{len(names)} half-port{'s' * (len(names) != 1)} with a link ({', '.join(names) or 'none'}) and "
            f"{len(addresses)} planned addresses do not fit; see the fabric report for the missing ones."
        )
    for name in names:
        if name in management:
            raise NetplanError(
                f"{name} carries the management network and can be no rail; take it out of "
                "dgx_vllm_fabric_interfaces."
            )
    if len(set(names)) != len(names):
        raise NetplanError(f"A rail is named twice ({', '.join(names)}); correct dgx_vllm_fabric_interfaces.")
    lines = [HEADER, "network:", "  version: 2", "  ethernets:"]
    for name, address in zip(names, addresses):
        lines += [
            f"    {name}:",
            "      dhcp4: false",
            "      dhcp6: false",
            "      accept-ra: false",
            "      link-local: []",
            "      optional: true",
            f"      mtu: {mtu}",
            "      addresses:",
            f"        - {address}",
        ]
    return "\n".join(lines) + "\n"
