"""Small filters of the role: sentences for the operator, systemd quoting, names and digests."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.speed import compare
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import as_findings, sentence

IGNORED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
DOCKER_HUB = "https://index.docker.io/v1/"


def explain_text(output: str) -> str:
    """Cause and remedy of the most telling known error in `output`, and the line that shows it; else its last lines."""
    findings = explain(output)
    if findings:
        return f"{findings[0].text} It said: {findings[0].line}"
    return "It said: " + " / ".join(line.strip() for line in output.strip().splitlines()[-3:])


def preflight_sentences(rows: Iterable[Mapping[str, str]], host: str) -> list[str]:
    """One sentence per row of `preflight`: where, what is wrong, how to fix it."""
    return [sentence(finding) for finding in as_findings(rows, host)]


def tree_digest(folder: str, *more: str) -> str:
    """First 12 hex digits of the SHA-256 over the files under `folder` (names, modes, bytes) and the strings `more`."""
    digest = hashlib.sha256("\0".join(more).encode())
    root = Path(folder)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and not IGNORED & set(name.parts):
            executable = "x" if path.stat().st_mode & 0o100 else "-"
            digest.update(f"\0{name.as_posix()}\0{executable}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def registry_of(image: str) -> str:
    """The registry that Docker would log in to for `image`."""
    first, slash, _ = image.partition("/")
    return first if slash and re.search(r"[.:]|^localhost$", first) else DOCKER_HUB


def without_nvidia(daemon: Mapping[str, Any], before: Mapping[str, bool]) -> dict[str, Any]:
    """`daemon` (daemon.json) without what nvidia-ctk added; `before` says what was there already."""
    rest = copy.deepcopy(dict(daemon))
    for section, key, kept in (("runtimes", "nvidia", "nvidia_runtime"), ("features", "cdi", "cdi")):
        if not before[kept] and section in rest:
            rest[section].pop(key, None)
            if not rest[section]:
                del rest[section]
    return rest


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "explain_text": explain_text,
            "preflight_sentences": preflight_sentences,
            "registry_of": registry_of,
            "speeds": compare,
            "tree_digest": tree_digest,
            "without_nvidia": without_nvidia,
        }
