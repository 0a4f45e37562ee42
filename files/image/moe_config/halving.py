"""Successive halving over real timings, and the rule that a tuned entry is never worse than vLLM's default.

Pure: the clock and the GPU come in through `Bench`, so the tests run it with a simulated one.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from .space import Config

GROUPS = (1, 16, 32, 64)
#: A winner must beat the default by more than this fraction, and by twice the default's own spread.
MINIMUM_GAIN = 0.01
PAIRS = 21
FINALISTS = 3


class Bench(Protocol):
    """Times configurations for one batch size."""

    def prepare(self, config: Config) -> bool:
        """Make it ready to be timed; False if it cannot run on this GPU."""

    def sample(self, config: Config) -> float:
        """One timing of a prepared configuration, microseconds per call."""

    def release(self, config: Config) -> None:
        """Free what it holds."""


@dataclass
class Verdict:
    """The entry to write for a batch size; times are medians, microseconds; ratio is tuned / default, paired."""

    config: Config
    default: Config
    tuned: bool
    ratio: float
    spread: float
    default_us: list[float] = field(default_factory=list)
    config_us: list[float] = field(default_factory=list)


def spread(values: Sequence[float]) -> float:
    """Median absolute deviation over the median: a relative, robust measure of noise."""
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values) / middle if middle else 0.0


def first_look(
    pool: Iterable[Config],
    bench: Bench,
    out_of_time: Callable[[], bool],
    samples: int = 3,
    patience: float = 3.0,
) -> dict[Config, float]:
    """Median of a few timings of each configuration, until time is up; a hopeless one gets a single timing."""
    seen: dict[Config, float] = {}
    best = float("inf")
    for config in pool:
        if seen and out_of_time():
            break
        if not bench.prepare(config):
            continue
        times = [bench.sample(config)]
        while len(times) < samples and times[0] < patience * best:
            times.append(bench.sample(config))
        bench.release(config)
        seen[config] = statistics.median(times)
        best = min(best, seen[config])
    return seen


def cores(pool: Iterable[Config], first: Sequence[Config] = (), seed: int = 0) -> list[Config]:
    """The pool without its GROUP_SIZE_M variants, `first` ahead of the others, which come in a fixed random order.

    The group only changes the order in which blocks run, so it is tried only on the best tiles.
    """
    rest = sorted({replace(config, group_m=GROUPS[0]) for config in pool})
    random.Random(seed).shuffle(rest)
    ahead = [replace(config, group_m=GROUPS[0]) for config in first]
    return list(dict.fromkeys([config for config in ahead if config in set(rest)] + rest))


def best_of(seen: dict[Config, float], keep: int) -> list[Config]:
    """The fastest, fastest first."""
    return sorted(seen, key=lambda config: (seen[config], config))[:keep]


def with_groups(configs: Sequence[Config], pool: Iterable[Config]) -> list[Config]:
    """Each configuration with every GROUP_SIZE_M that the pool has for it, in the given order."""
    allowed = set(pool)
    variants = [replace(config, group_m=group) for config in configs for group in GROUPS]
    return [config for config in dict.fromkeys(variants) if config in allowed]


def halve(
    pool: Sequence[Config],
    bench: Bench,
    out_of_time: Callable[[], bool],
    keep: int = FINALISTS,
    samples: int = 3,
) -> list[Config]:
    """Drop the slower half, double the timings, until `keep` are left; each round times all of them in turn."""
    ready = [config for config in pool if bench.prepare(config)]
    times: dict[Config, list[float]] = {config: [] for config in ready}
    while ready:
        for _ in range(samples):
            for config in ready:
                times[config].append(bench.sample(config))
        ranked = sorted(ready, key=lambda config: (statistics.median(times[config]), config))
        size = keep if len(ranked) <= 2 * keep or out_of_time() else len(ranked) // 2
        done = len(ranked) <= size or size == keep
        for config in ranked[size:]:
            bench.release(config)
        ready = ranked[:size]
        if done:
            break
        samples *= 2
    return ready


def decide(finalists: Sequence[Config], default: Config, bench: Bench, pairs: int = PAIRS) -> Verdict:
    """Time the finalists and the default in turn; a finalist must win beyond the noise, or the default stays."""
    rivals = [config for config in dict.fromkeys(finalists) if config != default and bench.prepare(config)]
    if not bench.prepare(default) or not pairs:
        raise ValueError("the default configuration cannot be timed")
    times: dict[Config, list[float]] = {config: [] for config in (default, *rivals)}
    for turn in range(pairs):
        order = list(times)
        for config in order[turn % len(order) :] + order[: turn % len(order)]:
            times[config].append(bench.sample(config))
    noise = spread(times[default])
    chosen = Verdict(default, default, False, 1.0, noise, times[default], times[default])
    for config in rivals:
        ratios = [mine / base for mine, base in zip(times[config], times[default], strict=True)]
        ratio = statistics.median(ratios)
        wins = sum(value < 1 for value in ratios) / pairs
        if ratio < 1 - max(MINIMUM_GAIN, 2 * noise) and wins >= 0.8 and ratio < chosen.ratio:
            chosen = Verdict(config, default, True, ratio, noise, times[default], times[config])
    for config in times:
        bench.release(config)
    return chosen
