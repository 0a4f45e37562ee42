"""Draw default against tuned, where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .journal import median


def draw_tuned(raw: dict[str, Any], path: Path) -> str:
    """Time of one layer call by batch size; a sentence on what was drawn, or why not."""
    verdicts = {int(batch): verdict for batch, verdict in raw["verdicts"].items()}
    if not verdicts:
        return "no plot: no batch size was finished."
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed."
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "moe_config"
    from matplotlib import pyplot

    batches = sorted(verdicts)
    machine, shape = raw["identity"]["machine"], raw["identity"]["shape"]
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(7, 6), sharex=True, height_ratios=(2, 1))
    for key, label in (("default_us", "vLLM's default"), ("config_us", "tuned")):
        upper.plot(batches, [median(verdicts[b][key]) for b in batches], marker="o", label=label)
    upper.set(xscale="log", yscale="log", ylabel="microseconds a layer call (median)")
    upper.legend()
    upper.grid(alpha=0.3)
    lower.axhline(1, color="grey", linewidth=1)
    lower.plot(batches, [verdicts[b]["ratio"] for b in batches], marker="o", color="C1")
    lower.set(xscale="log", xlabel="batch size (tokens)", ylabel="tuned / default", ylim=(0, 1.1))
    lower.set_xticks(batches, [str(b) for b in batches], rotation=60)
    lower.minorticks_off()
    lower.grid(alpha=0.3)
    figure.suptitle(
        f"MoE layer E={shape['experts']} N={shape['size']} K={shape['hidden']} top-{shape['topk']} {shape['dtype']}\n"
        f"{machine['device']}, vLLM {machine['vllm']}, Triton {machine['triton']}",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return f"plot in {path}"
