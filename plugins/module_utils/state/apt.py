"""The repositories that apt is configured for: files of one line a repository, and deb822 files (sources.list(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text

_LINE = re.compile(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)")


def repositories(root: Path) -> list[dict[str, Any]]:
    """`file`, `uri`, `suite` and `signed_by` ('' without one) of every enabled repository of packages."""
    folder = root / "etc/apt/sources.list.d"
    lists = [root / "etc/apt/sources.list", *sorted(folder.glob("*.list"))]
    found = [(path, entry) for path in lists for entry in _lines(read_text(path))]
    found += [
        (path, entry) for path in sorted(folder.glob("*.sources")) for entry in _stanzas(read_text(path))
    ]
    return [
        {"file": f"/{path.relative_to(root)}", "uri": uri.rstrip("/"), "suite": suite, "signed_by": key}
        for path, (uri, suite, key) in found
    ]


def _lines(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            key = re.search(r"signed-by=(\S+)", match.group(1) or "", re.IGNORECASE)
            yield match.group(2), match.group(3), key.group(1) if key else ""


def _stanzas(text: str) -> Iterator[tuple[str, str, str]]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] += f" {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        if (
            fields.get("enabled", "yes").lower() in ("no", "false", "0")
            or "deb" not in fields.get("types", "").split()
        ):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite, fields.get("signed-by", "")
