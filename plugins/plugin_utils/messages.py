"""Sentences that the role's tasks show to the operator."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import as_findings, sentence


def explain_text(output: str) -> str:
    """Cause and remedy of the most telling known error in `output`, and the line that shows it; else its last lines."""
    findings = explain(output)
    if findings:
        return f"{findings[0].text} Output: {findings[0].line}"
    return "Output: " + " / ".join(line.strip() for line in output.strip().splitlines()[-3:])


def preflight_sentences(rows: Iterable[Mapping[str, str]], host: str) -> list[str]:
    """One sentence per row of `preflight`: where, what is wrong, how to fix it."""
    return [sentence(finding) for finding in as_findings(rows, host)]


def speeds(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> list[str]:
    """One line per batch size: both medians with the slowest and fastest run, and the change.

    Both are what dgx_vllm_speed returned: batch size -> tokens per second of each run.
    """
    lines = []
    for batch, old in before.items():
        new = after.get(batch) or []
        if old and new:
            change = (statistics.median(new) / statistics.median(old) - 1) * 100
            lines.append(
                f"batch {batch}: {_speed(old)} before, {_speed(new)} after ({change:+.1f} %, {len(new)} runs each)"
            )
    return lines


def _speed(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.1f} tokens/s ({min(rates):.1f} to {max(rates):.1f})"
