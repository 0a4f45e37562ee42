"""Filters for Debian packages: what came with the role, what it changed, and what would go with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_BY_DPKG = re.compile(r"^(?:Unpacking|Setting up) ([a-z0-9][a-z0-9+.-]+)(?::[a-z0-9]+)? \(", re.MULTILINE)
_REPLACED = re.compile(
    r"^Unpacking ([a-z0-9][a-z0-9+.-]+)(?::[a-z0-9]+)? \((\S+)\) over \((\S+)\)", re.MULTILINE
)
_REMOVED = re.compile(r"^(?:Purg|Remv) ([a-z0-9][a-z0-9+.-]+)(?::[a-z0-9]+)? \[", re.MULTILINE)


def own_packages(new: Iterable[str], installed: Mapping[str, Any], asked: Iterable[str]) -> list[str]:
    """Those of the packages `new` on a node that this run installed, sorted.

    Others install at the same time: unattended-upgrades has dpkg's lock on a machine that was just set up. So dpkg's
    own lines in the result `installed` of ansible.builtin.apt decide; where it has none, only what was `asked` for.
    """
    named = set(_BY_DPKG.findall(str(installed.get("stdout", "")))) or {
        name.partition("=")[0] for name in asked
    }
    return sorted(named & set(new))


def replaced_versions(installed: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """NAME=VERSION, as they were, of the packages whose version this run changed, sorted; not of those in `known`.

    `installed` is the result of ansible.builtin.apt. `known` has names of packages that the role brought, and what an
    earlier run returned: the version before the role counts.
    """
    names = {one.partition("=")[0] for one in known}
    found = _REPLACED.findall(str(installed.get("stdout", "")))
    return sorted({f"{name}={old}" for name, new, old in found if new != old and name not in names})


def beyond_ledger(simulated: str, ledger: Iterable[str]) -> list[str]:
    """Packages that `apt-get --simulate purge` says would go although the role did not bring them, sorted."""
    return sorted(set(_REMOVED.findall(simulated)) - set(ledger))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "beyond_ledger": beyond_ledger,
            "own_packages": own_packages,
            "replaced_versions": replaced_versions,
        }
