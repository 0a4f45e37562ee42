"""Reading an image reference as Docker does: registry, repository, tag, digest."""

from __future__ import annotations

import re
from typing import NamedTuple

DOCKER_HUB = "docker.io"
LONGEST_PATH = 255

_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")


class ImageReference(NamedTuple):
    """`name` is the repository as the user wrote it, registry included; `tag` or `digest` may be empty."""

    name: str
    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def manifest(self) -> str:
        """What follows /manifests/ in a URL: the digest if there is one, else the tag."""
        return self.digest or self.tag


def split_registry(name: str) -> tuple[str, str]:
    """(registry, the rest) of an image's name; DOCKER_HUB where the name has no registry."""
    first, separator, path = name.partition("/")
    if separator and ("." in first or ":" in first or first == "localhost"):
        return first, path
    return DOCKER_HUB, name


def is_digest(text: str) -> bool:
    """Whether `text` is a digest as a registry gives it: sha256: and 64 hex digits, and nothing after them."""
    return _DIGEST.fullmatch(text) is not None


def parse(text: str) -> ImageReference:
    """The parts of `text`; a missing tag is `latest`. Raises ValueError with one sentence."""
    rest, at, digest = text.strip().partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{text!r} has no sha256 digest of 64 hex digits after the @; write name@sha256:…")
    head, slash, tail = rest.rpartition("/")
    last, colon, tag = tail.partition(":")
    name = head + slash + last
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"{text!r} has no valid tag after the colon; write name:tag")
    registry, path = split_registry(name)
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if len(path) > LONGEST_PATH or not _PATH.fullmatch(path) or not _HOST.fullmatch(registry):
        raise ValueError(
            f"{text!r} is not an image reference; write [registry/]name[:tag] or name@sha256:…, lower case"
        )
    return ImageReference(name, registry, path, "" if digest and not tag else tag or "latest", digest)
