"""The MoE layer alone, in a new process: vLLM's default, the shipped config and the tuner's, timed in turn.

    PYTHONPATH=files/image python3 tests/gpu/layer.py --out DIR --tuned DIR [--samples 60]

A server's speed is mostly the host's at these sizes; this is where a config that is slower than the default shows.
Every batch size of vLLM's files is measured. Exit status: 0 none is slower, 1 one is (named), 2 it could not run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from moe_config import ConfigError, bench
from moe_config.space import BATCH_SIZES, Config, Shape

IMAGE = Path(__file__).resolve().parents[2] / "files" / "image"

SHAPE = Shape(512, 512, 2048, 10)
#: A tuned entry is slower when its median pair is by more than SLACK, and MOST of the pairs are: 60 pairs of timings
#: of a CUDA graph repeat to about 0.5 %.
SLACK, MOST = 0.01, 0.75

Batches = dict[str, dict[str, Any]]


def slower(batches: Batches) -> list[str]:
    """One sentence for each batch size at which the tuner's entry loses to vLLM's default."""
    wrong = []
    for batch, found in batches.items():
        pairs = zip(found["us"]["tuned"], found["us"]["default"], strict=True)
        ratios = [mine / base for mine, base in pairs]
        losses = sum(ratio > 1 for ratio in ratios) / len(ratios)
        middle = statistics.median(ratios)
        if middle > 1 + SLACK and losses >= MOST:
            wrong.append(
                f"layer, batch {batch}: the tuned entry {found['configs']['tuned']} takes {middle:.3f} of the "
                f"default's time ({found['configs']['default']})."
            )
    return wrong


def entries(path: Path) -> dict[int, Config]:
    """Batch size -> entry of a file as vLLM reads it: the nearest key counts."""
    read = json.loads(path.read_text(encoding="utf-8"))
    keys = {int(key): Config.from_entry(value, path.name) for key, value in read.items() if key.isdigit()}
    return {batch: keys[min(keys, key=lambda key: abs(key - batch))] for batch in BATCH_SIZES}


def measure(layer: bench.Layer, batch: int, configs: dict[str, Config], samples: int) -> dict[str, Any]:
    """Timings of the three, in turn; one that this GPU cannot run is left out, but for the default and the tuned."""
    timer = bench.GraphBench(layer, batch)
    ready = {name: config for name, config in configs.items() if timer.prepare(config)}
    for name in ("default", "tuned"):
        if name not in ready:
            raise ConfigError(
                f"The {name} entry of batch {batch} does not run: {timer.failed[configs[name]]}."
            )
    times: dict[str, list[float]] = {name: [] for name in ready}
    names = list(ready)
    for turn in range(samples):
        for place in range(len(names)):
            name = names[(place + turn) % len(names)]
            times[name].append(round(timer.sample(ready[name]), 2))
    for config in set(ready.values()):
        timer.release(config)
    return {"configs": {name: str(config) for name, config in ready.items()}, "us": times}


def main() -> int:
    """Measure, write layer.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, required=True, help="directory with the tuner's file")
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args()
    try:
        bench.machine()
        file = options.tuned / bench.tuned_file_name(SHAPE)
        if not file.is_file():
            raise ConfigError(f"There is no {file}: run moe_config tune on this GPU first.")
        (shipped,) = (IMAGE / "configs").glob("E=512,N=512,*dtype=fp8_w8a8.json")
        tuned, seed = entries(file), entries(shipped)
        layer = bench.Layer(SHAPE)
        found: Batches = {}
        for batch in BATCH_SIZES:
            default = bench.default_config(SHAPE, batch)
            configs = {"default": default, "seed": seed[batch], "tuned": tuned[batch]}
            found[str(batch)] = measure(layer, batch, configs, options.samples)
            us = {name: statistics.median(times) for name, times in found[str(batch)]["us"].items()}
            told = ", ".join(f"{name} {value:.1f} us" for name, value in us.items())
            print(f"layer, batch {batch}: {told}", flush=True)
    except ConfigError as error:
        print(f"gpu trial: {error}", file=sys.stderr)
        return 2
    (options.out / "layer.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    wrong = slower(found)
    for sentence in wrong:
        print(f"BROKEN: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
