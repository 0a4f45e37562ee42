"""Filters for the image: the tag of what is built, the registry of what is pulled."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import (
    DOCKER_HUB,
    is_digest,
    parse,
    split_registry,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import image_lock

IGNORED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
NO_PART = re.compile(r".+\.md|\..+\.sw[a-p]|.+~|#.+#|.+\.(orig|rej|bak)")
"""Names of files that do nothing: documentation and what editors leave. A word in them must restart no server."""

DOCKER_HUB_LOGIN = "https://index.docker.io/v1/"
"""What `docker login` calls Docker Hub."""


def tree_digest(folder: str, *more: str) -> str:
    """First 12 hex digits of the SHA-256 over the files under `folder` (names, modes, bytes) and the strings `more`."""
    digest = hashlib.sha256("\0".join(more).encode())
    root = Path(folder)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and not IGNORED & set(name.parts) and not NO_PART.fullmatch(path.name):
            executable = "x" if path.stat().st_mode & 0o100 else "-"
            digest.update(f"\0{name.as_posix()}\0{executable}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def registry_of(image: str) -> str:
    """The registry that Docker would log in to for `image`."""
    registry, _ = split_registry(image)
    return DOCKER_HUB_LOGIN if registry == DOCKER_HUB else registry


def image_leader(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], image: str, source: str = "pull"
) -> str:
    """The first of `hosts` that pulls `image`, or builds from it, and asks the registry for the others; '' without one.

    A host that says itself that it does goes before one whose image source is the role's to know.
    """
    variable = "dgx_vllm_image" if source == "pull" else "dgx_vllm_image_build_base"
    wanting = [
        host
        for host in hosts
        if hostvars[host].get("dgx_vllm_state", "present") == "present"
        and hostvars[host].get(variable, image) == image
        and hostvars[host].get("dgx_vllm_image_source", source) == source
    ]
    sure = [host for host in wanting if "dgx_vllm_image_source" in hostvars[host]]
    return next(iter(sure or wanting), "")


def pinned_image(image: str, digest: str) -> str:
    """`image` by digest: its own, else `digest`, which a node was told by the registry.

    The name is always the inventory's: a node's answer may say which image of that name, not another name. Raises
    AnsibleFilterError with one sentence.
    """
    try:
        reference = parse(image)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    if not reference.digest and not is_digest(digest):
        raise AnsibleFilterError(
            f"the node that asked the registry for {image} did not answer with a digest: write"
            f" {reference.name}@sha256:… in dgx_vllm_image, or leave that node out with --limit"
        )
    return f"{reference.name}@{reference.digest or digest}"


def locked_digest(path: str, image: str) -> str:
    """The digest of `image` in the lock file `path`, '' if there is none. Raises AnsibleFilterError."""
    try:
        return image_lock.digest(Path(path), image)
    except (image_lock.LockError, OSError) as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "image_leader": image_leader,
            "locked_digest": locked_digest,
            "pinned_image": pinned_image,
            "registry_of": registry_of,
            "tree_digest": tree_digest,
        }
