"""What the preflight checks are given, and how they read and write sizes and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

State = Mapping[str, Any]
"""`state` of dgx_vllm_state."""

Settings = Mapping[str, Any]
"""The role's variables that a node is checked against; every key may be left out."""

GIB = 2**30


def as_dict(value: Any) -> Mapping[str, Any]:
    """What a node or a file gives as a dictionary; {} for anything else."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> Sequence[Any]:
    """What a node gives as a list; [] for anything else."""
    return value if isinstance(value, (list, tuple)) else []


def finite(value: Any) -> float | None:
    """A number as a node gives it; None for anything else and for what is larger than any of ours."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        return None
    return float(value)


def gib(size: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size / GIB:.1f} GiB"


def numbers(version: str | None) -> tuple[int, ...]:
    """The leading numbers of a version: `28.2.2-1` gives (28, 2, 2), None gives ()."""
    found: list[int] = []
    for part in (version or "").split("."):
        digits = ""
        for character in part:
            if character not in "0123456789" or len(digits) > 12:
                break
            digits += character
        if not digits:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)
