"""The rails' netplan file on the node, which the role renders from its template 40-cx7.yaml.j2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under

PATH = "/etc/netplan/40-cx7.yaml"
MODE = "0600"
FOLDERS = ("/etc/netplan", "/run/netplan", "/lib/netplan")
"""Where netplan looks for its files (netplan(5))."""
HEADER = "# Written by the role dgx_vllm: the rails of the ConnectX-7 fabric. Changes here are lost on its next run."
"""First line of the template."""


def read(root: Path) -> dict[str, Any]:
    """`text` and `mode` of the file, both None without one."""
    file = under(root, PATH)
    try:
        return {"text": file.read_text(encoding="utf-8"), "mode": f"{file.stat().st_mode & 0o7777:04o}"}
    except (OSError, UnicodeDecodeError):
        return {"text": None, "mode": None}


def elsewhere(root: Path, interfaces: Sequence[str]) -> dict[str, list[str]]:
    """Interface -> the other netplan files that configure it by its name; netplan merges them with ours.

    Matches by MAC address or pattern are not seen.
    """
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for file in sorted(under(root, folder).glob("*.yaml")):
            path = f"{folder}/{file.name}"
            text = read_text(file) if path != PATH else ""
            for name in interfaces:
                if re.search(rf"^\s+[\"']?{re.escape(name)}[\"']?\s*:", text, re.MULTILINE):
                    found.setdefault(name, []).append(path)
    return found


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
