"""Which files of a model's repository vLLM reads.

The rule for weights is that of vLLM's default loader (model_loader/default_loader.py and weight_utils.py, the same from
0.14 to 0.33): at the root of the repository the first kind that is there, consolidated*.safetensors of Mistral's format
before *.safetensors before *.bin before *.pt, and of safetensors files those that the index names. A repository may
have the same weights again in another format or in a folder of its own (gpt-oss has original/ and metal/); such a copy
is not fetched. Weights in a folder that are few beside the model's own may be a part of it (a Dense layer of an
embedding model, an audio encoder), and are fetched.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Optional

MISTRAL = "consolidated*.safetensors"
PATTERNS = {
    "hf": ("*.safetensors", "*.bin", "*.pt"),
    "safetensors": ("*.safetensors",),
    "fastsafetensors": ("*.safetensors",),
    "instanttensor": ("*.safetensors",),
    "runai_streamer": ("*.safetensors",),
    "mistral": (MISTRAL,),
    "pt": ("*.pt",),
    "npcache": ("*.bin",),
}
INDEX = "model.safetensors.index.json"
MISTRAL_INDEX = "consolidated.safetensors.index.json"
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
NEVER_READ = (".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".pth", ".tflite")
WEIGHTS = (".safetensors", ".bin", ".pt", *NEVER_READ)
COPY = 0.25
"""From this part of the model's own weights on, other weights are another copy of it."""


CONFIGS = ("config.json", "params.json")
"""A model's configuration: that of the hub, and that of Mistral's format."""


class Wanted(NamedTuple):
    """What the operator says of the files: patterns as `hf download` takes them, and vLLM's --load-format."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    load_format: str = "auto"


DEFAULT = Wanted()


def wanted_of(files: Mapping[str, Any]) -> Wanted:
    """From a dictionary with any of its fields."""
    include, exclude = files.get("include") or (), files.get("exclude") or ()
    return Wanted(tuple(include), tuple(exclude), str(files.get("load_format") or "auto"))


def plain(wanted: Wanted) -> dict[str, Any]:
    """As a record keeps it."""
    return {"include": [*wanted.include], "exclude": [*wanted.exclude], "load_format": wanted.load_format}


def named_by(index: bytes) -> Optional[set[str]]:
    """The files that the content of an index names; None if it is not an index."""
    try:
        found = {str(name) for name in json.loads(index)["weight_map"].values()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return found or None


def form(names: Collection[str], load_format: str) -> str:
    """The format that vLLM takes `auto` for; it looks for Mistral's files in folders too."""
    if load_format != "auto":
        return load_format
    return "mistral" if any(fnmatch(PurePosixPath(name).name, MISTRAL) for name in names) else "hf"


def index_of(names: Collection[str], load_format: str) -> str:
    """The index that says which files belong to the model; "" without one."""
    index = MISTRAL_INDEX if form(names, load_format) == "mistral" else INDEX
    return index if index in names else ""


def read_by_vllm(names: Collection[str], indexed: Optional[Collection[str]], load_format: str) -> set[str]:
    """The weight files that vLLM's default loader reads; none if that loader is not the one that is used.

    `indexed` are the files that the index names, None if it is absent or unknown.
    """
    root = [name for name in names if "/" not in name]
    for pattern in PATTERNS.get(form(names, load_format), ()):
        found = {name for name in root if fnmatch(name, pattern)}
        if found and pattern.endswith(".safetensors"):
            return found & set(indexed) or found if indexed else found
        if found:
            return {name for name in found if not name.endswith(NOT_WEIGHTS)}
    return set()


def needed(sizes: Mapping[str, int], indexed: Optional[Collection[str]], wanted: Wanted) -> set[str]:
    """The files to fetch, of those that the repository has (name -> bytes)."""
    if wanted.include:
        kept = {name for name in sizes if _matches(name, wanted.include)}
    else:
        kept = set(sizes) - _copies(sizes, indexed, wanted.load_format)
    return {name for name in kept if not _matches(name, wanted.exclude)}


def weight_bytes(sizes: Mapping[str, int], indexed: Optional[Collection[str]], load_format: str) -> int:
    """Bytes of the weights that vLLM reads; all weights where its loader is another one."""
    read = read_by_vllm(sizes, indexed, load_format)
    return sum(sizes[name] for name in read or [name for name in sizes if name.endswith(WEIGHTS)])


def _copies(sizes: Mapping[str, int], indexed: Optional[Collection[str]], load_format: str) -> set[str]:
    """Weights that vLLM does not read, as far as they are no small part of something else."""
    read = read_by_vllm(sizes, indexed, load_format)
    own = sum(sizes[name] for name in read)
    groups: dict[str, list[str]] = {}
    for name in sizes:
        if read and name not in read and name.endswith(WEIGHTS):
            folder, slash, _ = name.partition("/")
            groups.setdefault(folder + slash if slash else PurePosixPath(name).suffix, []).append(name)
    return {
        name
        for group, members in groups.items()
        if group in NEVER_READ or sum(sizes[one] for one in members) >= COPY * own
        for name in members
    }


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
