"""One model's part of the cache on a node, in huggingface_hub's layout.

`MODELS_DIR/hub/models--ORG--NAME/` holds blobs/ (named by sha256 for large files, by git blob id for the others),
snapshots/COMMIT/ (links to the blobs) and refs/REVISION (a commit).
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.hub import HubFile, Listing
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.names import is_commit
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import CONFIGS
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import (
    ORPHAN,
    indexed,
    model_folder,
    size_of,
    snapshot,
)

CHUNK = 4 * 1024 * 1024
WORKERS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


class Damage(NamedTuple):
    """A file that is not what it should be."""

    name: str
    reason: str


class Cache:
    """One model's part of the cache."""

    def __init__(self, models_dir: str, model: str) -> None:
        self.models_dir = models_dir
        self.model = model
        self.folder = Path(model_folder(models_dir, model))

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit."""
        return Path(snapshot(self.models_dir, self.model, commit))

    def ref(self, revision: str) -> str:
        """The commit that `revision` means in the cache; "" if it is not there."""
        if is_commit(revision):
            return revision if self.snapshot(revision).is_dir() else ""
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""
        return commit if is_commit(commit) else ""

    def set_ref(self, revision: str, commit: str) -> None:
        """Make `revision` mean `commit`, as an offline server looks it up; a commit needs no reference."""
        if revision != commit and self.ref(revision) != commit:
            files.write(self.folder / "refs" / revision, commit, 0o644)

    def missing(self, listing: Listing) -> list[HubFile]:
        """The files that are absent or have another size."""
        folder = self.snapshot(listing.commit)
        return [item for item in listing.files if size_of(folder / item.name) != item.size]

    def written_bytes(self) -> int:
        """Bytes on the disk, with those of parts and of Xet's chunks: what a download that goes on adds to."""
        places = [self.folder / "blobs", Path(self.models_dir) / "xet"]
        files_here = [
            Path(folder, name) for top in places for folder, _, names in os.walk(top) for name in names
        ]
        return sum(_allocated(path) for path in files_here)

    def partial_bytes(self) -> int:
        """Bytes of interrupted downloads that the next one continues."""
        return sum(max(0, size_of(path)) for path in self._incomplete() if not ORPHAN.search(path.name))

    def remove_orphans(self) -> None:
        """Remove parts that no download continues; call it only while none runs.

        huggingface_hub 2.4 names a part by its attempt (ETAG.8HEX.incomplete) and starts over after a kill.
        """
        for path in self._incomplete():
            if ORPHAN.search(path.name):
                path.unlink()

    def _incomplete(self) -> list[Path]:
        return list((self.folder / "blobs").glob("*.incomplete"))

    def damaged(self, listing: Listing) -> list[Damage]:
        """The files whose content is not what the listing says. Reads every byte."""
        folder = self.snapshot(listing.commit)
        with ThreadPoolExecutor(WORKERS) as pool:
            checks = pool.map(lambda item: _damage(folder / item.name, item), listing.files)
            return [damage for damage in checks if damage is not None]

    def remove(self, commit: str, name: str) -> None:
        """Remove one file and its blob, so that the next download fetches it again; only in the cache."""
        home = os.path.realpath(self.models_dir)
        for path in reversed(_chain(str(self.snapshot(commit) / name))):
            inside = os.path.realpath(os.path.dirname(path)).startswith(home + os.sep)
            if inside and os.path.lexists(path):
                os.unlink(path)

    def offline_listing(self, revision: str) -> Listing | None:
        """What the cache itself says of `revision`; the checksums are the names of the blobs.

        None if something is visibly absent: it needs a configuration, every weight file that the index names, and
        no interrupted download.
        """
        commit = self.ref(revision)
        if not commit or self.partial_bytes():
            return None
        root = self.snapshot(commit)
        paths = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
        if not all(path.exists() for path in paths):
            return None
        here = sorted(_from_blob(root, path) for path in paths)
        names_here = {item.name for item in here}
        if not names_here & {*CONFIGS} or not (indexed(root, names_here) or set()) <= names_here:
            return None
        return Listing(commit, here)


def _allocated(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def _from_blob(root: Path, path: Path) -> HubFile:
    """A file of a snapshot, with the checksum that the name of its blob is."""
    blob = os.path.basename(_chain(str(path))[:2][-1])
    sha256 = blob if _SHA256.fullmatch(blob) else ""
    sha1 = blob if _SHA1.fullmatch(blob) else ""
    return HubFile(str(path.relative_to(root)), size_of(path), sha256, sha1)


def _chain(path: str) -> list[str]:
    """The path and what it links to, step by step.

    A snapshot's link, the blob, and for a blob that several models share its place in hub/blobs/, whose name is
    not a checksum of the content.
    """
    steps = [path]
    while os.path.islink(steps[-1]) and len(steps) < 8:
        steps.append(os.path.normpath(os.path.join(os.path.dirname(steps[-1]), os.readlink(steps[-1]))))
    return steps


def _damage(path: Path, item: HubFile) -> Damage | None:
    size = size_of(path)
    if size != item.size:
        return Damage(item.name, "it is absent" if size < 0 else f"{size} bytes instead of {item.size}")
    if _SHA256.fullmatch(item.sha256):
        digest, expected = hashlib.sha256(), item.sha256
    elif _SHA1.fullmatch(item.git_sha1):
        digest, expected = hashlib.sha1(f"blob {size}\0".encode()), item.git_sha1
    else:
        return None
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    return None if digest.hexdigest() == expected else Damage(item.name, "its checksum is wrong")
