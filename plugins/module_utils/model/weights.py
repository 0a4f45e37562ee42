"""Whether a model's weights are on this node, judged from names and sizes (the download checks sums)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.service import record


def record_name(model: str, revision: str) -> str:
    """File name, under DATA_DIR/state, of the record that the download of this model and revision leaves."""
    return f"model-{hashlib.sha256(f'{model}@{revision}'.encode()).hexdigest()[:12]}.json"


def _size(path: Path) -> int:
    """Size in bytes, -1 when there is no such file (or a link to nothing)."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _absent(kind: str, path: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "present": False, "commit": None, "path": path, "size_bytes": 0}


def _at_path(root: Path, model: str) -> dict[str, Any]:
    directory = under(root, model)
    if not (directory / "config.json").is_file():
        return _absent("path", model)
    size = sum(_size(path) for path in directory.iterdir() if path.is_file())
    return {"kind": "path", "present": True, "commit": None, "path": model, "size_bytes": size}


def weights(root: Path, model: str, revision: str, models_dir: str, data_dir: str) -> dict[str, Any]:
    """Where the weights of `model` are.

    An absolute path counts as present when it holds a config.json. A hub id counts as present when the
    download's record names a commit and every file of the record is in that snapshot with its size.
    """
    if model.startswith("/"):
        return _at_path(root, model)
    if not model:
        return _absent("hub")
    known = record(under(root, data_dir) / "state" / record_name(model, revision))
    commit, files = known.get("commit"), known.get("files")
    if not isinstance(commit, str) or not commit or not isinstance(files, dict) or not files:
        return _absent("hub")
    if known.get("model") != model or known.get("revision") != revision:
        return _absent("hub")
    path = f"{models_dir.rstrip('/')}/hub/models--{model.replace('/', '--')}/snapshots/{commit}"
    complete = all(_size(under(root, path) / name) == size for name, size in files.items())
    return {
        "kind": "hub",
        "present": complete,
        "commit": commit,
        "path": path,
        "size_bytes": sum(files.values()) if complete else 0,
    }
