"""A folder with a model: whether it is whole, what two nodes of a replica must have alike, and who may use it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import CONFIGS, named_by

INDEXES = (
    "model.safetensors.index.json",
    "consolidated.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
COMPARED = (*WEIGHTS, ".json", ".jinja", ".model", ".py")
POINTER = b"version https://git-lfs"
POINTER_BYTES = 1024
"""A pointer of Git LFS, which a clone without it has instead of a large file, is smaller."""


def lacking(folder: Path) -> str:
    """What keeps vLLM from reading a model there, as the end of a sentence about the folder; '' if it is whole."""
    if not folder.is_dir():
        return "does not exist"
    sizes = _sizes(folder)
    if not any(name in sizes for name in CONFIGS):
        return "has no config.json"
    weights = [name for name in sizes if name.endswith(WEIGHTS)]
    for name in weights:
        if sizes[name] < POINTER_BYTES and _begins(folder / name, POINTER):
            return f"has a Git LFS pointer in place of {name} (git lfs pull fetches the file)"
    index = next((name for name in INDEXES if name in sizes), "")
    single = any(name.endswith(".safetensors") for name in weights)
    if index and not (single and index == INDEXES[-1]):
        missing = [name for name in sorted(_indexed(folder / index)) if sizes.get(name, 0) <= 0]
        if missing:
            return f"lacks {missing[0]}, which {index} names ({len(missing)} missing)"
    return "" if any(sizes[name] > 0 for name in weights) else "has no weights"


def compared(folder: Path) -> dict[str, str]:
    """Name -> size of the files that make up a model there, with the checksum of the small ones that decide."""
    return {
        name: f"{size} {_checksum(folder / name)}" if name.endswith(".json") else str(size)
        for name, size in sorted(_sizes(folder).items())
        if name.endswith(COMPARED) and not name.startswith(".")
    }


def heads(folder: Path) -> int | None:
    """The number of attention heads that the model's configuration names; None without one."""
    for name, key in ((CONFIGS[0], "num_attention_heads"), (CONFIGS[1], "n_heads")):
        try:
            content = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        parts = [content]
        if isinstance(content, dict):
            parts += [content.get(inner) for inner in ("text_config", "llm_config")]
        for part in parts:
            if isinstance(part, dict) and isinstance(part.get(key), int):
                return int(part[key])
    return None


def _indexed(index: Path) -> set[str]:
    """The weight files that an index names."""
    try:
        return named_by(index.read_bytes()) or set()
    except OSError:
        return set()


def barred(paths: Iterable[Path], write: bool = False) -> str:
    """The first of `paths` that root cannot use in a container without capabilities; '' if it can use all.

    Without CAP_DAC_OVERRIDE the bits of the file decide for root, too. This process has the user and group that root
    has in the container. What does not exist is not in the way.
    """
    user, group = os.geteuid(), os.getegid()
    for path in paths:
        try:
            info = path.stat()
        except OSError:
            continue
        shift = 6 if info.st_uid == user else 3 if info.st_gid == group else 0
        wanted = 4 + (2 if write else 0) + (1 if path.is_dir() else 0)
        if (info.st_mode >> shift) & wanted != wanted:
            return str(path)
    return ""


def _sizes(folder: Path) -> dict[str, int]:
    """Name -> bytes of the files directly in the folder; -1 for a link to nothing."""
    found = {}
    try:
        for path in folder.iterdir():
            if path.is_file() or path.is_symlink():
                found[path.name] = path.stat().st_size if path.exists() else -1
    except OSError:
        return found
    return found


def _begins(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(start)) == start
    except OSError:
        return False


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError:
        return ""
