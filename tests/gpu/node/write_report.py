#!/usr/bin/env python3
"""report.md of a trial from its results.json; also for kept results: write_report.py DIR."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PARTS = {
    "role": "The role, from a bare node to a bare node",
    "models": "Four kinds of models, without the role",
    "quick_start": "The quick start, and the shipped MoE config",
    "tune": "The tuner through the role",
}
STATUS = {"passed": "yes", "failed": "**no**", "left": "not run"}


def read(file: Path) -> Any:
    """The JSON of a file; an empty dictionary if it is not there."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def cell(text: str) -> str:
    """Text that fits into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def value(fact: Any) -> str:
    """A fact in words."""
    if isinstance(fact, dict):
        return ", ".join(f"{name} {value(item)}" for name, item in fact.items())
    if isinstance(fact, list):
        return "; ".join(value(item) for item in fact)
    return str(fact)


def checks(statuses: dict[str, str]) -> str:
    """How many checks passed, and the names of the others."""
    others = [f"{name}: {status}" for name, status in statuses.items() if status != "pass"]
    return f"{len(statuses) - len(others)} checks passed" + (f" ({', '.join(others)})" if others else "")


def facts(step: dict[str, Any]) -> str:
    """The facts of a step in one line; long ones are in results.json."""
    parts = []
    for name, fact in step.get("facts", {}).items():
        text = checks(fact) if name == "checks" else f"{name.replace('_', ' ')}: {value(fact)}"
        if len(text) <= 300:
            parts.append(text)
    return cell("; ".join(parts))


def table(steps: dict[str, dict[str, Any]]) -> list[str]:
    """The steps of one part."""
    lines = ["| step | passed | s | |", "|---|---|---:|---|"]
    for step in steps.values():
        error = cell(step.get("error", ""))[:200]
        lines.append(
            f"| {cell(step['title'])} | {STATUS[step['status']]} | {step.get('seconds', '')} | {error or facts(step)} |"
        )
    return lines


def quoted(steps: dict[str, dict[str, Any]]) -> list[str]:
    """The log lines that the steps kept."""
    lines: list[str] = []
    for step in steps.values():
        if step.get("lines"):
            lines += ["", f"{step['title']}:", "", "```text", *step["lines"], "```"]
    return lines


def machine(about: dict[str, Any], toolkit: str) -> list[str]:
    """What it ran on."""
    if not about:
        return []
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return [
        f"- GPU: {'; '.join(about['gpus']) or 'none'}",
        f"- machine: {about['cores']} cores, {about['memory_gib']} GiB, kernel {about['kernel']}, {about['system']}, "
        f"Python {about['python']} ({packages})",
        f"- node: {', '.join(about['bundle'].get('versions', [])) or 'unknown'}",
        f"- container toolkit: {toolkit or 'unknown'}",
    ]


def report(folder: Path) -> str:
    """The whole page."""
    steps: dict[str, dict[str, Any]] = read(folder / "results.json")
    toolkit = (
        (folder / "toolkit").read_text(encoding="utf-8").strip() if (folder / "toolkit").exists() else ""
    )
    times = {
        file.name: file.read_text(encoding="utf-8").strip() for file in sorted((folder / "times").glob("*"))
    }
    count = {status: sum(step["status"] == status for step in steps.values()) for status in STATUS}
    lines = [
        "# The role on a real GPU",
        "",
        "A node in namespaces of one machine (systemd as process 1, Docker, the GPU by CDI), and an operator with",
        "Ansible who reaches it by ssh. The GPU is not a GB10: `DGX_VLLM_ASSUME_CAPABILITY=12.1` makes the patch",
        "choose as on one. The models have random weights. None of this says how fast a GB10 is. Made by",
        "`tests/gpu/node/run.sh`.",
        "",
        f"**{count['passed']} steps passed, {count['failed']} failed, {count['left']} not run.**",
        "",
        *machine(read(folder / "machine.json"), toolkit),
    ]
    if times:
        lines.append(
            f"- before the steps: {', '.join(f'{name} {seconds} s' for name, seconds in times.items())}"
        )
    for part, title in PARTS.items():
        of_part = {name: step for name, step in steps.items() if name.partition(".")[0] == part}
        if of_part:
            lines += ["", f"## {title}", "", *table(of_part), *quoted(of_part)]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """Write the page; 1 if a step failed."""
    folder = Path(argv[1])
    (folder / "report.md").write_text(report(folder), encoding="utf-8")
    print(folder / "report.md")
    return int(any(step["status"] == "failed" for step in read(folder / "results.json").values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
