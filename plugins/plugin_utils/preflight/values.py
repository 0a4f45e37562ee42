"""What the preflight checks are given, and how they read and write sizes and versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

State = Mapping[str, Any]
"""`state` of dgx_vllm_state."""

Settings = Mapping[str, Any]
"""The role's variables that a node is checked against; every key may be left out."""

GIB = 2**30


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
