"""Findings for the operator: a table for the terminal, and one sentence per finding."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.columns import GAP, aligned, widths

HEAD = ("HOST", "CHECK", "STATUS", "FOUND")
STATUSES = ("pass", "skip", "warn", "fail")
"""From good to bad, the order in the table."""

Note = tuple[str, ...]


def as_findings(rows: Iterable[Mapping[str, Any]], where: str | None = None) -> list[Finding]:
    """Findings from their dictionaries, at `where` instead of their own place if it is given."""
    return [Finding(**{**row, "where": row.get("where", "") if where is None else where}) for row in rows]


def sentence(finding: Finding) -> str:
    """Where, what is wrong, why that matters, how to fix it."""
    parts = [f"{part.rstrip('.')}." for part in (finding.found, finding.reason, finding.remedy) if part]
    return " ".join([f"{finding.where}: {finding.check}:", *parts])


def table(findings: Sequence[Finding], width: int = 110, shown: Sequence[str] = ()) -> str:
    """One summary line per place, then each warning and failure with its reason and remedy, failures last.

    Places that share a finding word for word share its lines. Checks in `shown` have their line when they pass too.
    """
    details = [_detail(group) for group in _groups(findings, shown)]
    cells = [HEAD, *_summaries(findings), *(line for line, _notes in details)]
    indent = " " * (sum(widths(cells)[:3]) + 3 * len(GAP))
    text = aligned(cells)
    result = text[: -len(details)] if details else text
    for line, (_cells, notes) in zip(text[len(result) :], details, strict=True):
        result.append(line)
        for note in notes:
            result += textwrap.wrap(
                note, max(width, len(indent) + 40), initial_indent=indent, subsequent_indent=indent + "   "
            )
    return "\n".join(result)


def _summaries(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """Per place: the worst status and how often each status occurs."""
    statuses: dict[str, list[str]] = {}
    for finding in findings:
        statuses.setdefault(finding.where, []).append(finding.status)
    return [
        (
            where,
            "all",
            next((status for status in ("fail", "warn") if status in given), "pass").upper(),
            ", ".join(f"{given.count(status)} {status}" for status in STATUSES if status in given),
        )
        for where, given in statuses.items()
    ]


def _groups(findings: Sequence[Finding], shown: Sequence[str]) -> list[list[Finding]]:
    """The findings worth a line, those that differ only in their place together, failures last."""
    groups: dict[Finding, list[Finding]] = {}
    for finding in findings:
        if finding.status in ("warn", "fail") or finding.check in shown:
            groups.setdefault(finding._replace(where=""), []).append(finding)
    return sorted(groups.values(), key=lambda group: STATUSES.index(group[0].status))


def _detail(group: Sequence[Finding]) -> tuple[tuple[str, str, str, str], Note]:
    """The cells of a group's line and the notes below it."""
    first, others = group[0], len(group) - 1
    notes = [first.reason, f"-> {first.remedy}" if first.remedy else ""]
    if others:
        notes.append(f"hosts: {', '.join(finding.where for finding in group)}")
    name = f"{first.where} +{others}" if others else first.where
    return (name, first.check, first.status.upper(), first.found), tuple(note for note in notes if note)
