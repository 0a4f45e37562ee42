"""One line of any report: a check, how it went, what was found, why that matters, and what to do."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """`where` is a node, a pair of nodes with the rail, or a replica; `status` is pass, warn, fail or skip."""

    where: str
    check: str
    status: str
    found: str
    reason: str = ""
    remedy: str = ""


def passed(where: str, check: str, found: str, reason: str = "") -> Finding:
    """Nothing to do."""
    return Finding(where, check, "pass", found, reason)


def warned(where: str, check: str, found: str, reason: str, remedy: str) -> Finding:
    """Worth knowing; the run continues."""
    return Finding(where, check, "warn", found, reason, remedy)


def failed(where: str, check: str, found: str, reason: str, remedy: str) -> Finding:
    """The run stops."""
    return Finding(where, check, "fail", found, reason, remedy)


def skipped(where: str, check: str, found: str) -> Finding:
    """Not checked; `found` says why."""
    return Finding(where, check, "skip", found)


class Check(NamedTuple):
    """A named check at one place: the same four constructors for code that is given both."""

    where: str
    name: str

    def passed(self, found: str, reason: str = "") -> Finding:
        """Nothing to do."""
        return passed(self.where, self.name, found, reason)

    def warned(self, found: str, reason: str = "", remedy: str = "") -> Finding:
        """Worth knowing; the run continues."""
        return warned(self.where, self.name, found, reason, remedy)

    def failed(self, found: str, reason: str = "", remedy: str = "") -> Finding:
        """The run stops."""
        return failed(self.where, self.name, found, reason, remedy)

    def skipped(self, found: str) -> Finding:
        """Not checked; `found` says why."""
        return skipped(self.where, self.name, found)
