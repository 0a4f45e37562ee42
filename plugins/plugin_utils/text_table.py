"""The preflight report as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = ("HOST", "CHECK", "STATUS", "FOUND")


def _grouped(
    rows_by_host: Mapping[str, Sequence[Mapping[str, Any]]], shown: Sequence[str]
) -> dict[tuple[str, ...], list[str]]:
    """Hosts that share a finding word for word stand in one line of a fleet's report."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, rows in rows_by_host.items():
        for row in rows:
            if row["status"] != "pass" or row["check"] in shown:
                key = tuple(str(row[name]) for name in ("check", "status", "found", "reason", "remedy"))
                groups.setdefault(key, []).append(host)
    return groups


def _summary(host: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str, str, str]:
    counts = {status: sum(row["status"] == status for row in rows) for status in ("pass", "warn", "fail")}
    worst = next((status for status in ("fail", "warn") if counts[status]), "pass")
    return (
        host,
        "all",
        worst.upper(),
        ", ".join(f"{count} {status}" for status, count in counts.items() if count),
    )


def preflight_table(
    rows_by_host: Mapping[str, Sequence[Mapping[str, Any]]], width: int = 110, shown: Sequence[str] = ()
) -> str:
    """One summary line a host, then each warning and failure with its reason and remedy, failures last.

    Checks in `shown` have their line when they pass too.
    """
    lines: list[tuple[tuple[str, str, str, str], tuple[str, ...]]] = []
    for host, rows in rows_by_host.items():
        lines.append((_summary(host, rows), ()))
    groups = sorted(
        _grouped(rows_by_host, shown).items(), key=lambda item: ("pass", "warn", "fail").index(item[0][1])
    )
    for (check, status, found, reason, remedy), hosts in groups:
        name = hosts[0] if len(hosts) == 1 else f"{hosts[0]} +{len(hosts) - 1}"
        notes = tuple(note for note in (reason, f"-> {remedy}" if remedy else "") if note)
        lines.append(((name, check, status.upper(), found), notes))
        if len(hosts) > 1:
            lines[-1] = (lines[-1][0], (*notes, f"hosts: {', '.join(hosts)}"))
    columns = [
        max(len(head), *(len(line[0][i]) for line in lines)) if lines else len(head)
        for i, head in enumerate(_HEAD)
    ]
    indent = " " * (sum(columns[:3]) + 6)

    def rendered(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(size) for cell, size in zip(cells, columns, strict=True)).rstrip()

    text = [rendered(_HEAD)]
    for cells, notes in lines:
        text.append(rendered(cells))
        for note in notes:
            text += textwrap.wrap(
                note, max(width, len(indent) + 40), initial_indent=indent, subsequent_indent=indent + "   "
            )
    return "\n".join(text)
