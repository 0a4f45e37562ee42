"""The model cache on a node, in huggingface_hub's layout, and the record of what was verified in it.

`MODELS_DIR/hub/models--ORG--NAME/` holds blobs/ (named by sha256 for large files, by git blob id for the
others),
snapshots/COMMIT/ (links to the blobs) and refs/REVISION (a commit).
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.hub import HubFile, Listing

CHUNK = 4 * 1024 * 1024
WORKERS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_ORPHAN = re.compile(r"\.[0-9a-f]{8}\.incomplete$")


class Damage(NamedTuple):
    """A file that is not what it should be."""

    name: str
    reason: str


class Cache:
    """One model's part of the cache."""

    def __init__(self, models_dir: str, model: str) -> None:
        self.models_dir = models_dir
        self.folder = os.path.join(models_dir, "hub", "models--" + model.replace("/", "--"))

    def path(self, commit: str, name: str = "") -> str:
        """Where a file of a commit is."""
        return os.path.join(self.folder, "snapshots", commit, name) if name else self.snapshot(commit)

    def snapshot(self, commit: str) -> str:
        """The folder of a commit."""
        return os.path.join(self.folder, "snapshots", commit)

    def ref(self, revision: str) -> str:
        """The commit the cache knows `revision` by; "" if none."""
        if _SHA1.fullmatch(revision):
            return revision if os.path.isdir(self.snapshot(revision)) else ""
        try:
            with open(os.path.join(self.folder, "refs", revision), encoding="utf-8") as handle:
                return handle.read().strip()
        except (OSError, ValueError):
            return ""

    def set_ref(self, revision: str, commit: str) -> None:
        """Make `revision` mean `commit`, as an offline server looks it up; a commit needs no reference."""
        if revision != commit and self.ref(revision) != commit:
            files.write(Path(self.folder, "refs", revision), commit, 0o644)

    def missing(self, listing: Listing) -> list[HubFile]:
        """The files that are absent or have another size."""
        return [item for item in listing.files if _size(self.path(listing.commit, item.name)) != item.size]

    def partial_bytes(self) -> int:
        """Bytes of interrupted downloads that the next one continues."""
        return sum(max(0, _size(path)) for path in self._incomplete() if not _ORPHAN.search(path))

    def remove_orphans(self) -> None:
        """Remove parts that no download continues; call it only while none runs.

        huggingface_hub 2.4 names a part by its try (ETAG.8HEX.incomplete) and begins anew after a kill.
        """
        for path in self._incomplete():
            if _ORPHAN.search(path):
                os.unlink(path)

    def _incomplete(self) -> list[str]:
        blobs = os.path.join(self.folder, "blobs")
        try:
            return [os.path.join(blobs, name) for name in os.listdir(blobs) if name.endswith(".incomplete")]
        except OSError:
            return []

    def damaged(self, listing: Listing) -> list[Damage]:
        """The files whose content is not what the listing says. Reads every byte."""
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            checks = pool.map(lambda item: _damage(self.path(listing.commit, item.name), item), listing.files)
            return [damage for damage in checks if damage is not None]

    def remove(self, commit: str, name: str) -> None:
        """Remove one file and its blob, so that the next download fetches it again; only in the cache."""
        home = os.path.realpath(self.models_dir)
        for path in reversed(_chain(self.path(commit, name))):
            inside = os.path.realpath(os.path.dirname(path)).startswith(home + os.sep)
            if inside and os.path.lexists(path):
                os.unlink(path)

    def offline_listing(self, revision: str) -> Listing | None:
        """What the cache itself says of `revision` if nothing of it is visibly absent: no interrupted
        download, a
        config.json, and every weight file that the index names. The checksums are the names of the blobs."""
        commit = self.ref(revision)
        if not commit or self.partial_bytes():
            return None
        root = self.snapshot(commit)
        files = []
        for folder, _folders, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                blob = os.path.basename(_chain(path)[:2][-1])
                if not os.path.exists(path):
                    return None
                sha256 = blob if _SHA256.fullmatch(blob) else ""
                sha1 = blob if _SHA1.fullmatch(blob) else ""
                files.append(HubFile(os.path.relpath(path, root), os.path.getsize(path), sha256, sha1))
        names_here = {item.name for item in files}
        if "config.json" not in names_here or not _indexed(root) <= names_here:
            return None
        return Listing(commit, sorted(files))


def record_path(data_dir: str, model: str, revision: str) -> str:
    """Where the record of a verified model is."""
    key = hashlib.sha256(f"{model}@{revision}".encode()).hexdigest()[:12]
    return os.path.join(data_dir, "state", f"model-{key}.json")


def read_record(path: str, model: str, revision: str) -> Listing | None:
    """The recorded commit and sizes; None if there is no record or it is of something else."""
    try:
        with open(path, encoding="utf-8") as handle:
            data: dict[str, Any] = json.load(handle)
        if (data["model"], data["revision"]) != (model, revision):
            return None
        files = [HubFile(str(name), int(size), "", "") for name, size in data["files"].items()]
        return Listing(str(data["commit"]), files) if files else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(path: str, model: str, revision: str, listing: Listing) -> None:
    """Record that every file of the listing was verified."""
    sizes = {item.name: item.size for item in listing.files}
    content = {"model": model, "revision": revision, "commit": listing.commit, "files": sizes}
    files.write(Path(path), json.dumps(content, indent=1, sort_keys=True) + "\n", 0o644)


def _indexed(root: str) -> set[str]:
    try:
        with open(os.path.join(root, "model.safetensors.index.json"), encoding="utf-8") as handle:
            return set(json.load(handle)["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return set()


def _chain(path: str) -> list[str]:
    """The path and what it links to, step by step: a snapshot's link, the blob, and for a blob that several
    models
    share its place in hub/blobs/, whose name is no checksum of the content."""
    steps = [path]
    while os.path.islink(steps[-1]) and len(steps) < 8:
        steps.append(os.path.normpath(os.path.join(os.path.dirname(steps[-1]), os.readlink(steps[-1]))))
    return steps


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _damage(path: str, item: HubFile) -> Damage | None:
    size = _size(path)
    if size != item.size:
        return Damage(item.name, "it is absent" if size < 0 else f"{size} bytes instead of {item.size}")
    if _SHA256.fullmatch(item.sha256):
        digest, wanted = hashlib.sha256(), item.sha256
    elif _SHA1.fullmatch(item.git_sha1):
        digest, wanted = hashlib.sha1(f"blob {size}\0".encode()), item.git_sha1
    else:
        return None
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    return None if digest.hexdigest() == wanted else Damage(item.name, "its checksum is wrong")
