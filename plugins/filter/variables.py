"""A filter that finds misspelt variables, which Ansible's own validation lets pass unseen."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Callable


def unknown_variables(given: Iterable[str], known: Iterable[str]) -> list[str]:
    """One sentence for each given name that is not known, with the nearest known one when there is one."""
    names = sorted(set(known))
    sentences = []
    for name in sorted(set(given) - set(names)):
        close = get_close_matches(name, names, n=1, cutoff=0.8)
        hint = f"did you mean {close[0]}?" if close else "remove it, or see the variable table of the README."
        sentences.append(f"{name} is not a variable of this role, {hint}")
    return sentences


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"unknown_variables": unknown_variables}
