"""netplan's files on the node: that of the rails, which the role renders from 40-cx7.yaml.j2, and those of others."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under

PATH = "/etc/netplan/40-cx7.yaml"
MODE = "0600"
GENERATED = ("run/systemd/network/*-netplan-*", "run/NetworkManager/system-connections/netplan-*")
"""What `netplan generate` writes, at boot and with every apply."""
FOLDERS = ("/etc/netplan", "/run/netplan", "/lib/netplan")
"""Where netplan looks for its files, in the order in which they hide one another (netplan(5))."""
HEADER = "# Written by the role dgx_vllm: the rails of the ConnectX-7 fabric. Changes here are lost on its next run."
"""First line of the template."""
_KEY = re.compile(r"""^(\s*)["']?([^\s"'#][^"'#]*?)["']?\s*:(?:\s|$)\s*(.*)$""")


def read(root: Path) -> dict[str, Any]:
    """`text` and `mode` of the file, both None without one."""
    file = under(root, PATH)
    try:
        return {"text": file.read_text(encoding="utf-8"), "mode": f"{file.stat().st_mode & 0o7777:04o}"}
    except (OSError, UnicodeDecodeError):
        return {"text": None, "mode": None}


def _others(root: Path) -> Iterator[tuple[str, str]]:
    """Path and text of every file but ours that netplan reads, in its order: by name, whatever the folder."""
    seen: dict[str, str] = {}
    for folder in FOLDERS:
        for file in under(root, folder).glob("*.yaml"):
            seen.setdefault(file.name, f"{folder}/{file.name}")
    for _, path in sorted(seen.items()):
        if path != PATH:
            yield path, read_text(under(root, path))


def unapplied(root: Path) -> list[str]:
    """Files of others that changed after netplan last wrote what it makes of them; [] where that is not known.

    What NetworkManager keeps there (90-NM-…) it applies itself.
    """
    made = [file.stat().st_mtime for place in GENERATED for file in root.glob(place)]
    if not made:
        return []
    paths = [path for path, _ in _others(root) if not Path(path).name.startswith("90-NM-")]
    return [path for path in paths if under(root, path).stat().st_mtime > max(made)]


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(name, body) of every mapping at the depth of interfaces: network, its kind (ethernets), the interface."""
    stack: list[int] = []
    name, depth, body = "", 0, []
    for line in text.splitlines():
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        indent = len(line) - len(stripped)
        if name and indent > depth:
            body.append(line)
            continue
        if name:
            yield name, "\n".join(body)
            name, body = "", []
        key = _KEY.match(line)
        while stack and stack[-1] >= indent:
            stack.pop()
        if key and len(stack) == 2:
            name, depth, body = key.group(2), indent, [key.group(3)] if key.group(3) else []
        elif key:
            stack.append(indent)
    if name:
        yield name, "\n".join(body)


def _concerns(name: str, body: str, device: Mapping[str, Any]) -> bool:
    """Whether a block is about a device: by its id, or by the name, pattern or MAC address that it matches."""
    match = re.search(r"^\s+match:(.*(?:\n\s+(?:name|macaddress|driver):.*)*)", body, re.MULTILINE)
    if not match or not re.search(r"name|macaddress", match.group(1)):
        return name == str(device["interface"])
    wanted = dict(re.findall(r"(name|macaddress):\s*[\"']?([^\"'\s,}]+)", match.group(1)))
    named = fnmatchcase(str(device["interface"]), wanted.get("name", "*"))
    return named and str(wanted.get("macaddress", device["mac"])).lower() == str(device["mac"])


def _addresses(body: str) -> list[str]:
    """The IPv4 addresses with a length that a block gives, and `dhcp4` if it asks for one."""
    found = []
    for text in re.findall(r"\d+\.\d+\.\d+\.\d+/\d+", re.sub(r"(?m)^\s*-?\s*(to|via|from):.*$", "", body)):
        try:
            found.append(str(ipaddress.IPv4Interface(text)))
        except ValueError:
            continue
    asks = re.search(r"\bdhcp4:\s*[\"']?(true|yes|on)\b", body)
    return [*found, *(["dhcp4"] if asks else [])]


def elsewhere(root: Path, devices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each other file that configures one of `devices`: `file`, `interfaces`, and the `addresses` that it adds."""
    found = []
    for path, text in _others(root):
        names: list[str] = []
        addresses: list[str] = []
        for name, body in _blocks(text):
            concerned = [str(device["interface"]) for device in devices if _concerns(name, body, device)]
            names += concerned
            addresses += _addresses(body) if concerned else []
        if names:
            found.append({"file": path, "interfaces": sorted(set(names)), "addresses": addresses})
    return found


def renderer(root: Path) -> str:
    """networkd or NetworkManager: what the last file that says it says for all interfaces (networkd by default)."""
    chosen = "networkd"
    for _, text in _others(root):
        outer = re.search(r"^( +)(?=[^\s#])", text, re.MULTILINE)
        places = rf"^{outer.group(1)}|^network:\s*{{.*?" if outer else r"^network:\s*\{.*?"
        said = re.findall(rf"(?:{places})renderer:\s*[\"']?(\w+)", text, re.MULTILINE)
        chosen = said[-1] if said else chosen
    return chosen


def given(text: str | None) -> list[tuple[str, str]]:
    """(interface, address) of every address in a file that the role wrote; [] for any other file."""
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
