"""Draw default against tuned as an SVG; standard library only, since the image has no plotting package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from .journal import median

_WIDTH, _LEFT, _RIGHT = 700, 70, 20
_UPPER, _LOWER = (60, 370), (400, 550)
_HEIGHT = 620
_BLUE, _ORANGE, _GREY = "#1f77b4", "#ff7f0e", "#888888"


class Axis:
    """A scale from values to pixels, logarithmic or not."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool) -> None:
        self._turn = math.log10 if log else float
        self._low, self._high = self._turn(low), self._turn(high)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (self._turn(value) - self._low) / ((self._high - self._low) or 1.0)
        return round(self._start + share * (self._end - self._start), 1)


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _curve(xs: Sequence[float], ys: Sequence[float], colour: str) -> list[str]:
    points = " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True))
    line = f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return [
        line,
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in zip(xs, ys, strict=True)),
    ]


def _grid(axis: Axis, values: Sequence[float]) -> list[str]:
    lines = []
    for value in values:
        y = axis(value)
        lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#dddddd"/>')
        lines.append(_text(_LEFT - 6, y + 4, f"{value:g}", "end"))
    return lines


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade within the range."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**d for d in decades for step in (1, 2, 5) if low <= step * 10.0**d <= high]


def draw_tuned(raw: dict[str, Any], path: Path) -> str:
    """Time of one layer call by batch size; a sentence on what was drawn, or why nothing was."""
    verdicts = {int(batch): verdict for batch, verdict in raw["verdicts"].items()}
    if not verdicts:
        return "no plot: no batch size was finished."
    batches = sorted(verdicts)
    times = {key: [median(verdicts[b][key]) for b in batches] for key in ("default_us", "config_us")}
    every = [value for values in times.values() for value in values if value > 0] or [1.0]
    low, high = min(every) * 0.8, max(every) * 1.25
    across = Axis(batches[0], max(batches[-1], batches[0] + 1), _LEFT + 15, _WIDTH - _RIGHT - 15, log=True)
    upper = Axis(low, high, _UPPER[1], _UPPER[0], log=True)
    lower = Axis(0.0, 1.1, _LOWER[1], _LOWER[0], log=False)
    xs = [across(batch) for batch in batches]
    machine, shape = raw["identity"]["machine"], raw["identity"]["shape"]
    title = (
        "MoE layer E={experts} N={size} K={hidden} top-{topk} {dtype}".format(**shape),
        f"{machine['device']}, vLLM {machine['vllm']}, Triton {machine['triton']}",
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        *(_text(_WIDTH / 2, 20 + 18 * i, line, more=' font-size="13"') for i, line in enumerate(title)),
        *_grid(upper, _ticks(low, high)),
        *_grid(lower, [0, 0.25, 0.5, 0.75, 1]),
        *_curve(xs, [upper(max(value, low)) for value in times["default_us"]], _BLUE),
        *_curve(xs, [upper(max(value, low)) for value in times["config_us"]], _ORANGE),
        *_curve(xs, [lower(verdicts[b]["ratio"]) for b in batches], _ORANGE),
        f'<text x="{_LEFT + 10}" y="{_UPPER[0] + 14}" fill="{_BLUE}">vLLM\'s default</text>',
        f'<text x="{_LEFT + 10}" y="{_UPPER[0] + 30}" fill="{_ORANGE}">tuned</text>',
        _text(16, sum(_UPPER) / 2, "microseconds per layer call (median)", more=_upright(sum(_UPPER) / 2)),
        _text(16, sum(_LOWER) / 2, "tuned / default", more=_upright(sum(_LOWER) / 2)),
        _text(_WIDTH / 2, _HEIGHT - 8, "batch size (tokens)"),
        *(
            _text(x, _LOWER[1] + 16, str(batch), "end", f' transform="rotate(-60 {x} {_LOWER[1] + 16})"')
            for x, batch in zip(xs, batches, strict=True)
        ),
        "</svg>",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"plot in {path}"


def _upright(y: float) -> str:
    return f' transform="rotate(-90 16 {y})"'
