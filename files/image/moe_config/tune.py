"""tune: find the fastest configuration for each batch size on this machine's GPU, and write vLLM's file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import ConfigError, plot
from .halving import best_of, cores, decide, first_look, halve, with_groups
from .journal import Journal, summary, tuned_file, write_json
from .model import load
from .name import local_shape
from .quant import detect
from .space import BATCH_SIZES, Config, Shape, brute_force, candidates, launch_class

#: Fractions of the time budget: compiling ahead, and the first look at every tile.
_COMPILE, _LOOK = 0.35, 0.70
_KEEP = 8
#: What the layer of bench.py measures. The kernel of other quantisations takes its scales another way.
TUNED = "fp8-channel"
_KINDS = {"none": "not quantised"}
_GB10 = 121


class Progress:
    """One line on stderr, redrawn on a terminal, written every 10 seconds elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._start, self._last = clock, clock(), float("-inf")

    def __call__(self, text: str, final: bool = False) -> None:
        now = self._clock()
        terminal = sys.stderr.isatty()
        if not final and now - self._last < (0.2 if terminal else 10):
            return
        self._last = now
        line = f"[{now - self._start:6.0f} s] {text}"
        end = "\n" if final or not terminal else ""
        print(("\r\x1b[K" if terminal else "") + line, end=end, file=sys.stderr, flush=True)


class Slice:
    """A clock that says when a part of the time is up."""

    def __init__(self, end: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._end, self._clock = end, clock

    def part(self, parts: int) -> Callable[[], bool]:
        """Out of time for the next of `parts` equal parts of what is left."""
        now = self._clock()
        end = now + max(0.0, self._end - now) / max(parts, 1)
        return lambda: self._clock() >= end


def shape_of(options: argparse.Namespace) -> Shape:
    """The layer to tune, from a model's own files or from numbers."""
    numbers = (options.experts, options.intermediate, options.hidden, options.topk)
    if options.model:
        if any(numbers):
            raise ConfigError("Give --model or the numbers of the layer, not both.")
        model = load(options.model, options.revision)
        if not model.is_moe:
            raise ConfigError(f"{options.model} has no experts: there is nothing to tune.")
        quant = detect(model)
        topk = model.text.get("num_experts_per_tok") or model.text.get("moe_topk")
        if not isinstance(topk, int):
            raise ConfigError(
                f"{options.model} does not say how many experts per token uses: give the four numbers."
            )
        experts, size = local_shape(model, options.tp, options.ep)
        if quant.experts != TUNED:
            raise ConfigError(
                f"The experts of {options.model} are {_KINDS.get(quant.experts, quant.experts)}, and tune measures "
                f"{TUNED} only: use vLLM's own benchmarks/kernels/benchmark_moe.py for them."
            )
        return Shape(experts, size, model.hidden_size, topk)
    if not all(numbers):
        raise ConfigError("Give --model, or all of --experts, --intermediate, --hidden and --topk.")
    return Shape(*numbers)


class Tuner:
    """Tunes one layer; every step is saved, so another run continues where the first one stopped."""

    def __init__(self, bench: Any, layer: Any, capability: int, journal: Journal, progress: Progress) -> None:
        self._gpu, self._layer, self._capability = bench, layer, capability
        self.journal, self._progress = journal, progress

    def _bench(self, batch: int) -> Any:
        made = self._gpu.GraphBench(self._layer, batch)
        made.failed = self.journal.failed
        return made

    def run(self, batches: list[int], budget: float) -> None:
        """Three steps: compile and look at every tile, add GROUP_SIZE_M, decide against the default."""
        shape, journal = self._layer.shape, self.journal
        start = time.monotonic()
        todo = [batch for batch in batches if batch not in journal.verdicts]
        look = [batch for batch in todo if batch not in journal.looks]
        pools = {batch: candidates(shape, batch, self._capability)[0] for batch in todo}
        tiles = {batch: cores(pools[batch]) for batch in look}
        self._compile([(batch, config) for batch in look for config in tiles[batch]], budget * _COMPILE)
        slice_ = Slice(start + budget * _LOOK)
        known: list[Config] = []
        for position, batch in enumerate(look):
            self._progress(f"batch {batch}: first look at {len(tiles[batch])} tiles")
            pool = cores(pools[batch], known)
            seen = first_look(pool, self._bench(batch), slice_.part(len(look) - position))
            if seen:
                journal.looks[batch] = seen
                known = best_of(seen, _KEEP)
            journal.save()
        rivals = {
            batch: with_groups(best_of(journal.looks[batch], _KEEP), pools[batch])
            for batch in todo
            if batch in journal.looks
        }
        left = start + budget - time.monotonic()
        fresh = [(batch, config) for batch, pool in rivals.items() for config in pool if config.group_m > 1]
        self._compile(fresh, left * 0.5)
        slice_ = Slice(start + budget)
        for position, batch in enumerate(rivals):
            self._progress(f"batch {batch}: halving {len(rivals[batch])} configurations")
            self._decide(batch, rivals[batch], slice_.part(len(rivals) - position))
            journal.seconds += time.monotonic() - start
            start = time.monotonic()
        journal.save()

    def _compile(self, todo: list[tuple[int, Config]], seconds: float) -> None:
        once = {
            (launch_class(self._layer.shape, batch), config): (batch, config)
            for batch, config in reversed(todo)
        }
        if not once:
            return

        def report(done: int, total: int) -> None:
            self._progress(f"compiled {done} of {total}")

        self.journal.compiled += self._gpu.compile_ahead(
            self._layer.shape, list(once.values()), seconds, report
        )
        self._progress(f"compiled {self.journal.compiled} configurations", final=True)

    def _decide(self, batch: int, rivals: list[Config], out_of_time: Callable[[], bool]) -> None:
        bench = self._bench(batch)
        default = self._gpu.default_config(self._layer.shape, batch)
        finalists = halve(rivals, bench, out_of_time)
        while True:
            verdict = decide(finalists, default, bench)
            error = self._layer.error(verdict.config, batch)
            if error <= self._gpu.TOLERANCE:
                break
            if not verdict.tuned:
                raise ConfigError(
                    f"vLLM's default for batch size {batch} has an error of {error:.3f} against the float32 reference: "
                    "do not serve with this vLLM on this GPU."
                )
            self.journal.failed[verdict.config] = f"wrong result: relative error {error:.4f}"
            finalists = [config for config in finalists if config != verdict.config]
        self.journal.decided(batch, verdict, error)
        change = f"{(verdict.ratio - 1) * 100:+.1f} %" if verdict.tuned else "the default stays"
        self._progress(f"batch {batch}: {change} ({verdict.config}, error {error:.4f})", final=True)


def plan(shape: Shape, batches: list[int]) -> str:
    """What a run would do on a GB10, as one sentence."""
    left = sum(len(candidates(shape, batch, _GB10)[0]) for batch in batches)
    return (
        f"{shape.experts} experts of size {shape.size}, hidden size {shape.hidden}, top-{shape.topk}, {shape.dtype}: "
        f"{len(batches)} batch sizes, {left} configurations left of {len(brute_force()) * len(batches)}."
    )


def _batches(text: str) -> list[int]:
    values = [int(item) for item in text.split(",") if item.strip().isdigit()]
    if not values or len(values) != len(text.split(",")) or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 1,8,32")
    return sorted(set(values))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--model", metavar="DIR_OR_HF_ID", help="take the layer from this model")
    parser.add_argument("--revision", default="main", help="branch or commit of a Hugging Face id")
    parser.add_argument(
        "--tp", type=_positive, default=1, metavar="N", help="tensor parallel size (with --model)"
    )
    parser.add_argument(
        "--ep", type=_positive, default=1, metavar="N", help="expert parallel size (with --model)"
    )
    parser.add_argument("--experts", type=_positive, metavar="E", help="experts on one GPU")
    parser.add_argument("--intermediate", type=_positive, metavar="N", help="expert size on one GPU")
    parser.add_argument("--hidden", type=_positive, metavar="K", help="hidden size")
    parser.add_argument("--topk", type=_positive, metavar="T", help="experts per token")
    parser.add_argument("--batch-sizes", type=_batches, default=list(BATCH_SIZES), metavar="1,8,32")
    parser.add_argument("--budget", type=_positive, default=3600, metavar="SECONDS", help="time to spend")
    parser.add_argument(
        "--output", type=Path, default=Path("tuned"), metavar="DIR", help="where the results go"
    )
    parser.add_argument(
        "--plan", action="store_true", help="report what would be tuned, or why nothing can be; needs no GPU"
    )


def run(options: argparse.Namespace) -> int:
    """Tune; exit 0 if every batch size has its entry, 1 if time ran out first."""
    shape = shape_of(options)
    if options.plan:
        print(plan(shape, options.batch_sizes))
        return 0
    from . import bench

    found = bench.machine()
    options.output.mkdir(parents=True, exist_ok=True)
    progress = Progress()
    journal = Journal(options.output / "state.json", shape, asdict(found))
    layer = bench.Layer(shape)
    Tuner(bench, layer, found.capability, journal, progress).run(options.batch_sizes, options.budget)
    name = bench.tuned_file_name(shape)
    defaults = {b: bench.default_config(shape, b) for b in (*BATCH_SIZES, *options.batch_sizes)}
    write_json(options.output / name, tuned_file(journal.verdicts, defaults, found.triton))
    brute = len(brute_force()) * len(options.batch_sizes)
    tried = sum(len(seen) for seen in journal.looks.values())
    raw = {**journal.as_dict(), "file": name, "tried": tried, "brute_force": brute}
    raw["dropped"] = {str(b): candidates(shape, b, found.capability)[1] for b in options.batch_sizes}
    write_json(options.output / "timings.json", raw)
    drawn = plot.draw_tuned(raw, options.output / "tuned.svg")
    print(summary(journal.verdicts, options.batch_sizes))
    print(f"{tried} configurations timed of {brute} by brute force, in {journal.seconds:.0f} s; {drawn}")
    print(f"{options.output / name}")
    return 0 if all(batch in journal.verdicts for batch in options.batch_sizes) else 1
