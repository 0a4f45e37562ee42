"""The trial's table and plot; also redrawn from the kept ab.json: python3 tests/gpu/report.py DIR."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("stock", "patched-default", "patched-seed", "patched-tuned")


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Median absolute deviation over the median."""
    middle = median(values)
    return statistics.median(abs(value - middle) for value in values) / middle


def line(workload: str, sides: dict[str, list[float]]) -> str:
    """One workload in one line."""
    shown = [f"{name} {median(values):.1f} (±{spread(values) * 100:.1f} %)" for name, values in sides.items()]
    return f"{workload}: " + ", ".join(shown)


def title(result: dict[str, Any]) -> str:
    """What was measured on; the capability is assumed, and the title says so."""
    machine = result["machine"]
    short = "H100" if "H100" in machine["device"] else machine["device"]
    return f"{short}, capability assumed"


def table(result: dict[str, Any]) -> str:
    """Markdown: medians of tokens per second, the spread of the runs, and the paired change against the default."""
    machine = result["machine"]
    own = f"{machine['capability'] // 10}.{machine['capability'] % 10}"
    lines = [
        f"# {title(result)}",
        "",
        f"{machine['device']} (capability {own}, the patched sides told to choose as for "
        f"{result['assumed_capability']}), vLLM {machine['vllm']}, torch {machine['torch']}, "
        f"Triton {machine['triton']}. Qwen3-MoE with made-up weights, FP8-Dynamic, {result['layers']} layers of "
        "512 experts x 512, hidden 2048, top-10, through the image's entry point over HTTP. Tokens per second, "
        f"median of {result['runs']} runs taken in turn (± median absolute deviation); in brackets the paired change "
        "against `patched-default`. This says nothing about the speed of any other GPU.",
        "",
        "| | " + " | ".join(NAMES) + " |",
        "|---|" + "---:|" * len(NAMES),
    ]
    for workload, sides in result["rates"].items():
        cells = []
        for name in NAMES:
            pairs = zip(sides[name], sides["patched-default"], strict=True)
            change = (median([mine / base for mine, base in pairs]) - 1) * 100
            against = "" if name == "patched-default" else f" ({change:+.1f} %)"
            cells.append(f"{median(sides[name]):.1f} ±{spread(sides[name]) * 100:.1f} %{against}")
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    broken = result["broken"] or ["none"]
    lines += ["", "Broken promises: " + " ".join(broken)]
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> str:
    """Bars of each workload relative to patched-default, every run a dot."""
    try:
        import matplotlib
    except ImportError:
        return "No plot: matplotlib is not installed."
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "dgx-vllm"
    from matplotlib import pyplot

    rates = result["rates"]
    figure, axes = pyplot.subplots(1, len(rates), figsize=(3 * len(rates), 4))
    for axis, (workload, sides) in zip(axes, rates.items(), strict=True):
        for place, name in enumerate(NAMES):
            axis.bar(place, median(sides[name]), color=f"C{place}", alpha=0.7)
            axis.plot([place] * len(sides[name]), sides[name], ".", color="black", markersize=3)
        axis.set_title(workload, fontsize=9)
        axis.set_xticks(
            range(len(NAMES)), [name.replace("patched-", "patched,\n") for name in NAMES], fontsize=7
        )
        axis.set_ylabel("tokens per second" if axis is axes[0] else "")
    machine = result["machine"]
    figure.suptitle(f"{title(result)} (vLLM {machine['vllm']}, Triton {machine['triton']})", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return f"Plot in {path}"


def write(result: dict[str, Any], out: Path) -> str:
    """Write ab.md and ab.svg; the table."""
    text = table(result)
    (out / "ab.md").write_text(text, encoding="utf-8")
    return text + draw(result, out / "ab.svg")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(write(json.loads((place / "ab.json").read_text(encoding="utf-8")), place))
