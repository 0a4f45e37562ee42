"""The lock of a node: one run changes it at a time. It lies on a tmpfs, so that a reboot frees it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files

STALE_S = 24 * 3600.0
"""A run that took the lock this long ago is over: longer than any stage waits with the role's defaults."""


def take(path: Path, run: Mapping[str, str], gone: str = "") -> dict[str, Any]:
    """Take the lock for `run`; {} when it has it, otherwise who holds it, with `since` (seconds of the epoch).

    `run` has `id`, and what people read of it. The lock of `gone` (an id of a run that is known to have ended) and one
    that is older than STALE_S count as free. Raises OSError.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _alone(path.parent):
        holder = read(path)
        ours = holder.get("id") in (None, run["id"], gone)
        if not ours and time.time() - float(holder["since"]) < STALE_S:
            return holder
        since = holder["since"] if holder.get("id") == run["id"] else time.time()
        files.write(path, json.dumps({**run, "since": since}) + "\n", 0o644)
    return {}


def free(path: Path, run_id: str) -> None:
    """Free the lock if the run `run_id` holds it. Raises OSError."""
    if not path.parent.is_dir():
        return
    with _alone(path.parent):
        if read(path).get("id") == run_id:
            path.unlink()


def read(path: Path) -> dict[str, Any]:
    """Who holds the lock, {} for nobody. A file that cannot be understood is a lock too. Raises OSError."""
    try:
        since, text = path.stat().st_mtime, path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        holder = None
    if not isinstance(holder, dict):
        return {"id": "unknown", "since": since}
    known = holder.get("since")
    number = isinstance(known, (int, float)) and not isinstance(known, bool)
    return {**holder, "id": str(holder.get("id") or "unknown"), "since": known if number else since}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
