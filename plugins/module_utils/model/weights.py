"""Where a model's weights are on a node, the record of their verification, and whether they are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model import selection
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.service import record


def model_folder(models_dir: str, model: str) -> str:
    """The part of the cache that belongs to `model` (ORG/NAME), where huggingface_hub looks for it."""
    return f"{models_dir.rstrip('/')}/hub/models--{model.replace('/', '--')}"


def snapshot(models_dir: str, model: str, commit: str) -> str:
    """The folder of one commit of `model`."""
    return f"{model_folder(models_dir, model)}/snapshots/{commit}"


def record_path(data_dir: str, model: str, revision: str) -> str:
    """The record that the download of this model and revision leaves."""
    key = hashlib.sha256(f"{model}@{revision}".encode()).hexdigest()[:12]
    return f"{data_dir.rstrip('/')}/state/model-{key}.json"


def write_record(
    data_dir: str,
    model: str,
    revision: str,
    commit: str,
    sizes: Mapping[str, int],
    wanted: selection.Wanted = selection.DEFAULT,
) -> None:
    """Record that every wanted file of the commit (name -> size in bytes) was verified."""
    content = {
        "model": model,
        "revision": revision,
        "commit": commit,
        "files": dict(sizes),
        "wanted": selection.plain(wanted),
    }
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    files.write(Path(record_path(data_dir, model, revision)), text, 0o644)


def size_of(path: Path) -> int:
    """Size in bytes, -1 if there is no such file (or a link to nothing)."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def indexed(folder: Path, names: Collection[str], load_format: str = "auto") -> set[str] | None:
    """The weight files that the index of a model folder names; None if there is none that can be read."""
    index = selection.index_of(names, load_format)
    try:
        content = (folder / index).read_bytes() if index else b""
    except OSError:
        return None
    return selection.named_by(content)


def _absent(kind: str, path: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "present": False, "commit": None, "path": path, "size_bytes": 0}


def _at_path(root: Path, model: str, wanted: selection.Wanted) -> dict[str, Any]:
    directory = under(root, model)
    if not any((directory / name).is_file() for name in selection.CONFIGS):
        return _absent("path", model)
    sizes = {path.name: size_of(path) for path in directory.iterdir() if path.is_file()}
    size = _weight_bytes(directory, sizes, wanted)
    return {"kind": "path", "present": True, "commit": None, "path": model, "size_bytes": size}


def _weight_bytes(folder: Path, sizes: Mapping[str, int], wanted: selection.Wanted) -> int:
    return selection.weight_bytes(sizes, indexed(folder, sizes, wanted.load_format), wanted.load_format)


def weights(
    root: Path,
    model: str,
    revision: str,
    models_dir: str,
    data_dir: str,
    wanted: selection.Wanted = selection.DEFAULT,
) -> dict[str, Any]:
    """Where the weights of `model` are, judged by names and sizes; the download is what compares checksums.

    An absolute path counts as present if it holds a configuration. A hub id counts as present if the download's
    record names a commit, was made for the same wanted files, and has every file in that snapshot with its size.
    `size_bytes` is what vLLM reads of it.
    """
    if model.startswith("/"):
        return _at_path(root, model, wanted)
    if not model:
        return _absent("hub")
    verified = record(under(root, record_path(data_dir, model, revision)))
    commit, sizes = verified.get("commit"), verified.get("files")
    if not isinstance(commit, str) or not commit or not isinstance(sizes, dict) or not sizes:
        return _absent("hub")
    if verified.get("model") != model or verified.get("revision") != revision:
        return _absent("hub")
    # A record without this entry is of an earlier version, which fetched every file.
    if verified.get("wanted", selection.plain(wanted)) != selection.plain(wanted):
        return _absent("hub")
    path = snapshot(models_dir, model, commit)
    complete = all(size_of(under(root, path) / name) == size for name, size in sizes.items())
    return {
        "kind": "hub",
        "present": complete,
        "commit": commit,
        "path": path,
        "size_bytes": _weight_bytes(under(root, path), sizes, wanted) if complete else 0,
    }
