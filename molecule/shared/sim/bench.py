"""Stands in for moe_config/bench.py, the part of the tuner that needs a GPU: the same names, and made-up timings.

The rest of the tuner (what is searched, halving, the rule against the default, the journal, the files) is the real one.
The nearer a configuration is to BEST, the faster it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from .name import DEVICE, file_name
from .space import Config, Shape

TOLERANCE = 0.05
BEST = Config(32, 64, 128, 16, 4, 3)


@dataclass(frozen=True)
class Machine:
    device: str
    capability: int
    vllm: str
    torch: str
    triton: str


def machine() -> Machine:
    return Machine("NVIDIA GB10", 121, metadata.version("vllm"), metadata.version("torch"), "3.8.0")


def default_config(shape: Shape, batch: int) -> Config:
    return Config(16, 32, 64, 1, 4, 4)


def tuned_file_name(shape: Shape) -> str:
    return file_name(shape.experts, shape.size, DEVICE, shape.file_dtype, shape.block)


class Layer:
    def __init__(self, shape: Shape, real: bool = True) -> None:
        self.shape = shape

    def error(self, config: Config, batch: int, limit: int = 32) -> float:
        return 0.01


class GraphBench:
    def __init__(self, layer: Layer, batch: int) -> None:
        self.failed: dict[Config, str] = {}
        self._batch, self._random = batch, random.Random(batch)

    def prepare(self, config: Config) -> bool:
        return config not in self.failed

    def sample(self, config: Config) -> float:
        pairs: list[tuple[Any, Any]] = list(zip(vars(config).values(), vars(BEST).values(), strict=True))
        away = sum(abs(mine.bit_length() - best.bit_length()) for mine, best in pairs)
        return (20.0 + self._batch) * (1 + 0.05 * away) * self._random.uniform(0.999, 1.001)

    def release(self, config: Config) -> None:
        pass


def compile_ahead(
    shape: Shape,
    wanted: Sequence[tuple[int, Config]],
    seconds: float,
    report: Callable[[int, int], None],
    workers: int | None = None,
) -> int:
    """Takes a few seconds, so that a test can look at the node meanwhile."""
    time.sleep(4)
    report(len(wanted), len(wanted))
    return len(wanted)
