"""The unit as systemd sees it, and the role's own records: releases, ledger, last healthy run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils import systemd
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under

_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result", "InvocationID",
    "NeedDaemonReload", "FragmentPath",
)  # fmt: skip
_IMAGE_ID = re.compile(r"^X-DgxVllm-Image-Id=(\S+)\s*$", re.MULTILINE)
_RELEASE = re.compile(r"^X-DgxVllm-Release=(\S+)\s*$", re.MULTILINE)


def service(root: Path, runner: Runner, unit: str) -> dict[str, Any]:
    """The unit as systemd sees it, and the release its installed file carries.

    `error` says why systemctl gave no answer: then it is not known whether the unit `exists`.
    """
    shown, error = systemd.show(runner, unit, _PROPERTIES)
    path = shown.get("FragmentPath") or f"/etc/systemd/system/{unit}"
    match = _RELEASE.search(read_text(under(root, path)))
    load_state = shown.get("LoadState", "unknown")
    restarts = shown.get("NRestarts", "0")
    if not error and "LoadState" not in shown:
        error = "systemctl show gave an answer without LoadState"
    return {
        "error": error or None,
        "exists": load_state not in ("not-found", "unknown"),
        "load_state": load_state,
        "active_state": shown.get("ActiveState", "unknown"),
        "sub_state": shown.get("SubState", "unknown"),
        "enabled": shown.get("UnitFileState") == "enabled",
        "n_restarts": int(restarts) if restarts.isdigit() else 0,
        "result": shown.get("Result", ""),
        "invocation_id": shown.get("InvocationID", ""),
        "release": match.group(1) if match else None,
        "unit_sha256": digest(under(root, path)),
        "needs_reload": shown.get("NeedDaemonReload") == "yes",
    }


def releases(config_dir: Path) -> dict[str, Any]:
    """The releases under `config_dir` by id, and the ids that `current` and `previous` point at."""
    try:
        folders = sorted(entry for entry in (config_dir / "releases").iterdir() if entry.is_dir())
    except OSError:
        folders = []
    return {
        "releases": {folder.name: _release(folder) for folder in folders},
        "current": _pointer(config_dir / "current"),
        "previous": _pointer(config_dir / "previous"),
    }


def _release(folder: Path) -> dict[str, Any]:
    """Whether a release is whole, and where its server listens; other values of its environment stay here."""
    unit, environment = folder / "dgx-vllm.service", folder / "vllm.env"
    lines = dict(line.split("=", 1) for line in read_text(environment).splitlines() if "=" in line)
    image = _IMAGE_ID.search(read_text(unit))
    return {
        "unit_sha256": digest(unit),
        "env_sha256": digest(environment),
        "env_mode": _mode(environment),
        "host": lines.get("HOST", ""),
        "port": int(lines["PORT"]) if lines.get("PORT", "").isdigit() else 0,
        "image_id": image.group(1) if image else None,
        "watch_sha256": digest(folder / "watch.json"),
        "start_sha256": digest(folder / "start.py"),
    }


def watch(root: Path, runner: Runner, unit: str, config_dir: Path) -> dict[str, Any]:
    """The replica watch's unit, the release whose watch.json it reads, and which secret its node has."""
    shown = service(root, runner, unit)
    try:
        release = Path(os.readlink(config_dir / "watch.json")).parent.name
    except OSError:
        release = None
    keys = ("error", "exists", "active_state", "enabled", "unit_sha256")
    secret = _secret(config_dir / "watch.secret")
    return {**{key: shown[key] for key in keys}, "release": release, "secret": secret}


def _secret(path: Path) -> dict[str, str]:
    """The replica that a secret is for and the digest of its word, which tells nothing of it; '' if it is not whole."""
    words = read_text(path).split()
    if len(words) != 2 or not re.fullmatch("[0-9a-f]{64}", words[1]) or _mode(path) != "0600":
        return {"replica": "", "sha256": ""}
    return {"replica": words[0], "sha256": hashlib.sha256(words[1].encode()).hexdigest()}


def digest(path: Path) -> str | None:
    """SHA-256 of a file in hex, None if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _mode(path: Path) -> str | None:
    try:
        return f"{stat.S_IMODE(path.stat().st_mode):04o}"
    except OSError:
        return None


def _pointer(link: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(link).rstrip("/"))
    except OSError:
        return None


def record(path: Path) -> dict[str, Any]:
    """A JSON object the role wrote; empty if absent or damaged (then the work is done again)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
