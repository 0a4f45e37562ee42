"""Where a model's weights are on a node, the record of their verification, and whether they are there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model import folder, selection
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.names import is_commit, is_file_name
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.service import record

ORPHAN = re.compile(r"\.[0-9a-f]{8}\.incomplete$")
"""A part of an attempt that no later download continues (huggingface_hub 2.4: ETAG.8HEX.incomplete)."""


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


def indexed(place: Path, names: Collection[str], load_format: str = "auto") -> set[str] | None:
    """The weight files that the index of a model folder names; None if there is none that can be read."""
    index = selection.index_of(names, load_format)
    try:
        content = (place / index).read_bytes() if index else b""
    except OSError:
        return None
    return selection.named_by(content)


def partial_bytes(part: Path) -> int:
    """Bytes of a model's part of the cache that a download need not fetch again, complete or not."""
    blobs = list((part / "blobs").glob("*"))
    return sum(max(0, size_of(blob)) for blob in blobs if not ORPHAN.search(blob.name))


def _found(kind: str, present: bool, **more: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "commit": None, "path": None, "size_bytes": 0, "partial_bytes": 0, "lacking": "", "files": {},
        "heads": None, "unreadable": "", "unwritable": "",
    }  # fmt: skip
    return {"kind": kind, "present": present, **nothing, **more}


def _at_path(root: Path, model: str, wanted: selection.Wanted) -> dict[str, Any]:
    directory = under(root, model)
    lacking = folder.lacking(directory)
    if lacking:
        return _found("path", False, path=model, lacking=lacking)
    paths = [path for path in sorted(directory.iterdir()) if path.is_file()]
    return _found(
        "path",
        True,
        path=model,
        size_bytes=_weight_bytes(directory, {path.name: size_of(path) for path in paths}, wanted),
        files=folder.compared(directory),
        heads=folder.heads(directory),
        unreadable=_on_node(root, folder.barred([directory, *paths])),
    )


def _on_node(root: Path, path: str) -> str:
    return f"/{Path(path).relative_to(root)}" if path else ""


def _to_fetch(root: Path, model: str, models_dir: str) -> dict[str, Any]:
    """A hub model that is not complete: what of it is there, and whether the download may write."""
    home, part = under(root, models_dir), under(root, model_folder(models_dir, model))
    written = [home, home / "hub", part, *(part / name for name in ("blobs", "refs", "snapshots"))]
    return _found(
        "hub",
        False,
        partial_bytes=partial_bytes(part),
        unwritable=_on_node(root, folder.barred(written, write=True)),
    )


def _weight_bytes(place: Path, sizes: Mapping[str, int], wanted: selection.Wanted) -> int:
    return selection.weight_bytes(sizes, indexed(place, sizes, wanted.load_format), wanted.load_format)


def weights(
    root: Path,
    model: str,
    revision: str,
    models_dir: str,
    data_dir: str,
    wanted: selection.Wanted = selection.DEFAULT,
) -> dict[str, Any]:
    """Where the weights of `model` are, judged by names and sizes; the download is what compares checksums.

    An absolute path counts as present if vLLM finds a model there. A hub id counts as present if the download's
    record names a commit, was made for the same wanted files, and has every file in that snapshot with its size.
    `size_bytes` is what vLLM reads of it.
    """
    if model.startswith("/"):
        return _at_path(root, model, wanted)
    if not model:
        return _found("hub", False)
    verified = record(under(root, record_path(data_dir, model, revision)))
    commit, sizes = verified.get("commit"), verified.get("files")
    if not isinstance(commit, str) or not is_commit(commit) or not isinstance(sizes, dict) or not sizes:
        return _to_fetch(root, model, models_dir)
    if not all(is_file_name(name) and isinstance(size, int) for name, size in sizes.items()):
        return _to_fetch(root, model, models_dir)
    if verified.get("model") != model or verified.get("revision") != revision:
        return _to_fetch(root, model, models_dir)
    # A record without this entry is of an earlier version, which fetched every file.
    if verified.get("wanted", selection.plain(wanted)) != selection.plain(wanted):
        return _to_fetch(root, model, models_dir)
    path = snapshot(models_dir, model, commit)
    files_there = [under(root, path) / name for name in sizes]
    if any(size_of(file) != size for file, size in zip(files_there, sizes.values())):
        return {**_to_fetch(root, model, models_dir), "commit": commit, "path": path}
    home, part = under(root, models_dir), under(root, model_folder(models_dir, model))
    read = [home, home / "hub", part, part / "snapshots", part / "blobs", under(root, path), *files_there]
    return _found(
        "hub",
        True,
        commit=commit,
        path=path,
        size_bytes=_weight_bytes(under(root, path), sizes, wanted),
        heads=folder.heads(under(root, path)),
        unreadable=_on_node(root, folder.barred(read)),
    )
