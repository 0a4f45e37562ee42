"""The answer of one preflight check, and its line in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

State = Mapping[str, Any]
Settings = Mapping[str, Any]

GIB = 2**30


class Verdict(NamedTuple):
    """`status` is pass, warn or fail; a pass needs no remedy."""

    status: str
    found: str
    reason: str
    remedy: str = ""


class Row(NamedTuple):
    """One line of the preflight report."""

    check: str
    status: str
    found: str
    reason: str
    remedy: str


def passed(found: str, reason: str = "") -> Verdict:
    """Nothing to do."""
    return Verdict("pass", found, reason)


def warned(found: str, reason: str, remedy: str) -> Verdict:
    """Worth knowing; the run goes on."""
    return Verdict("warn", found, reason, remedy)


def failed(found: str, reason: str, remedy: str) -> Verdict:
    """The run stops before anything is changed."""
    return Verdict("fail", found, reason, remedy)


def gib(size: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size / GIB:.1f} GiB"


def numbers(version: str | None) -> tuple[int, ...]:
    """The leading numbers of a version: `28.2.2-1` gives (28, 2, 2), None gives ()."""
    found: list[int] = []
    for part in (version or "").split("."):
        digits = ""
        for character in part:
            if not character.isdigit():
                break
            digits += character
        if not digits:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)
