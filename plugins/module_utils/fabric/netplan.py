"""The rails' netplan file. Written by hand, so that the text is the same on every controller."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under

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
            f"{len(names)} interface{'s' * (len(names) != 1)} of cabled ports ({', '.join(names) or 'none'}) and "
            f"{len(addresses)} planned addresses do not match; see the fabric report for the missing ones."
        )
    for name in names:
        if name in management:
            raise NetplanError(
                f"{name} carries the management network and cannot be a rail; remove it from "
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


def read(root: Path) -> dict[str, Any]:
    """The file that is there: `text` and `mode`, both None without one."""
    file = under(root, PATH)
    try:
        return {"text": file.read_text(encoding="utf-8"), "mode": f"{file.stat().st_mode & 0o7777:04o}"}
    except (OSError, UnicodeDecodeError):
        return {"text": None, "mode": None}


def given(text: str | None) -> list[tuple[str, str]]:
    """(interface, address) of every address in a file that `render` wrote; [] for any other file."""
    addresses: list[tuple[str, str]] = []
    name = ""
    for line in (text or "").splitlines() if ours(text) else ():
        heading, address = re.match(r"    (\S+):$", line), re.match(r"        - (\S+)$", line)
        if heading:
            name = heading.group(1)
        elif address:
            addresses.append((name, address.group(1)))
    return addresses


def ours(text: str | None) -> bool:
    """Whether the role wrote this file."""
    return bool(text) and str(text).startswith(HEADER)
