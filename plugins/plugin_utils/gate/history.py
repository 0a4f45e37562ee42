"""What the gate measured in previous runs, kept by replica on the operator's machine, and what has become slower."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding, warned

RUNS = 20
FALL = 0.10
LARGEST = 1e6
"""Gb/s or GB/s that no link has; a larger figure in a file is damage."""

Run = Mapping[str, Any]
"""`time`, and `figures`: what was measured -> its value."""


def previous_runs(files: Sequence[Mapping[str, Any]], replicas: Sequence[str]) -> dict[str, list[Run]]:
    """Replica -> its previous runs, out of what slurp returned for each of `replicas`.

    A file that is missing or holds no valid history is left out.
    """
    found = {}
    for replica, file in zip(replicas, files, strict=False):
        try:
            runs = json.loads(base64.b64decode(file["content"]))
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
        if isinstance(runs, list):
            found[replica] = [run for run in runs if _is_run(run)]
    return found


def _is_run(run: Any) -> bool:
    """Whether an entry of a history file is one that this module wrote."""
    if not isinstance(run, dict) or not isinstance(run.get("time"), str):
        return False
    figures_of_run = run.get("figures")
    return isinstance(figures_of_run, dict) and all(_is_figure(value) for value in figures_of_run.values())


def _is_figure(value: Any) -> bool:
    """Whether it is a bandwidth: a whole number of thousands of digits is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= LARGEST and math.isfinite(value)


def runs_to_keep(planned: Mapping[str, Any], measured: Mapping[str, Any], time: str) -> dict[str, Any]:
    """Replica -> its previous runs and this one, as they are kept on the operator's machine."""
    previous = measured.get("history") or {}
    return {
        name: extended(previous.get(name) or [], time, figures(name, measured, replica["hosts"]))
        for name, replica in planned["replicas"].items()
        if replica["size"] > 1
    }


def figures(replica: str, measured: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, float]:
    """Bandwidths of a replica by name: Gb/s of each link (`spark2 rail 0 - spark1 rail 0`), GB/s of the all-gather."""
    found = {
        f"{one['from']} rail {one['rail']} - {one['to']} rail {one.get('to_rail', one['rail'])}": float(
            one["gbits"]
        )
        for one in measured.get("bandwidth") or []
        if one["from"] in hosts and one.get("gbits") is not None
    }
    busbw = ((measured.get("nccl") or {}).get(replica) or {}).get("busbw_gbytes")
    return {**found, "all-gather": float(busbw)} if busbw is not None else found


def extended(runs: Sequence[Run], time: str, new: Mapping[str, float]) -> list[dict[str, Any]]:
    """The last runs with this one; a run without a figure is not kept."""
    kept = [dict(run) for run in runs]
    return [*kept, {"time": time, "figures": dict(new)}][-RUNS:] if new else kept[-RUNS:]


def slower(replica: str, runs: Sequence[Run], new: Mapping[str, float]) -> list[Finding]:
    """A warning for each figure that fell by more than a tenth since the last run that has it."""
    found = []
    for name, value in new.items():
        last = next((run for run in reversed(runs) if name in run.get("figures", {})), None)
        previous = float(last["figures"][name]) if last else 0.0
        if last and value < previous * (1 - FALL):
            unit = "GB/s" if name == "all-gather" else "Gb/s"
            found.append(
                warned(
                    replica,
                    "trend",
                    f"{name}: {previous:.1f} -> {value:.1f} {unit}",
                    f"it fell by {100 * (1 - value / previous):.0f} % since {last['time']}",
                    "run it again on idle machines; if it stays so, check what changed since: cables, firmware, "
                    "kernels",
                )
            )
    return found
