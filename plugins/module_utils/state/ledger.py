"""The ledger: what the role added to a node, so that uninstall removes that and nothing else.

A ledger that is not there is empty. One that cannot be read is neither: whoever took it for empty would leave
everything on the node for ever, and nobody would know.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files


class LedgerError(Exception):
    """The ledger is damaged or cannot be read or written; the text is a sentence that says what to do."""


def read(path: Path) -> dict[str, Any]:
    """The ledger at `path`, {} if there is none. Raises LedgerError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(content, dict):
        raise _damaged(path, "it does not hold an object")
    return content


def add(
    path: Path, news: Mapping[str, Any], write: bool, gone: Mapping[str, list[Any]] | None = None
) -> tuple[dict[str, Any], bool]:
    """The ledger with `news` and without `gone`, and whether it changed; with `write` the file has it, too.

    Lists grow by what they lack and lose what is gone, any other value is replaced. Two runs at once lose nothing: the
    file is read again under a lock. Raises LedgerError.
    """
    if not write:
        return _merged(read(path), news, gone or {})
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise LedgerError(f"{path.parent} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        merged, changed = _merged(read(path), news, gone or {})
        if changed:
            files.write(path, json.dumps(merged, indent=4, sort_keys=True) + "\n", 0o644)
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        os.close(lock)
    return merged, changed


def _merged(
    known: dict[str, Any], news: Mapping[str, Any], gone: Mapping[str, list[Any]]
) -> tuple[dict[str, Any], bool]:
    merged = dict(known)
    for name, value in news.items():
        before = known.get(name)
        if isinstance(value, list) and isinstance(before, list):
            value = before + [item for item in value if item not in before]
        merged[name] = value
    for name, items in gone.items():
        if name in merged:
            merged[name] = [item for item in merged[name] if item not in items]
    return merged, merged != known


def _damaged(path: Path, why: str) -> LedgerError:
    return LedgerError(
        f"{path} is damaged ({why}), so it is not known what this role added to the node: restore it from a backup, or"
        " move it away, and then uninstall leaves what was added before"
    )
