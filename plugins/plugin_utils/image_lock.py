"""The lock file beside an inventory: the digest that each tag of a base image had when it was first used.

YAML, for people and version control: image -> digest and date. Named .txt, so that Ansible does not take it for an
inventory where it lies in a folder of inventories.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import is_digest

HEADER = "# Written by the role dgx_vllm. Commit it: with it every node builds from the same base images.\n"


class LockError(Exception):
    """The lock file is damaged; the text is one sentence."""


def read(path: Path) -> dict[str, dict[str, str]]:
    """Digest and date by image; {} without a file. Raises LockError and OSError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValueError) as error:
        raise LockError(
            f"{path} is not YAML: restore it, or remove it so that it is written again."
        ) from error
    entries: list[tuple[Any, Any]] = list(content.items()) if isinstance(content, dict) else [("", None)]
    for image, entry in entries:
        if not isinstance(entry, dict) or not is_digest(str(entry.get("digest"))):
            raise LockError(
                f"{path} has no digest of {image or 'an image'}: restore it, or remove it so that it is written again."
            )
    return {str(image): {name: str(text) for name, text in entry.items()} for image, entry in entries}


def digest(path: Path, image: str) -> str:
    """The locked digest of `image`, '' if there is none. Raises LockError and OSError."""
    return read(path).get(image, {}).get("digest", "")


def write(path: Path, image: str, found: str) -> None:
    """Lock `image` to the digest `found`. Raises LockError and OSError."""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # Hosts with other bases are asked for at the same time.
        entries = {**read(path), image: {"digest": found, "date": date}}
        files.write(path, HEADER + yaml.safe_dump(entries, sort_keys=True), 0o644)
    finally:
        os.close(folder)
