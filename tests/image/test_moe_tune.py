"""The tuner's pure parts: search space, halving over a made-up clock, the never-worse rule, resuming, the file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from moe_config import ConfigError, halving, plot, tune
from moe_config.journal import Journal, tuned_file
from moe_config.space import (
    BATCH_SIZES,
    Config,
    Shape,
    brute_force,
    candidates,
    launch_class,
    refusal,
    shared_memory,
)

SHAPE = Shape(512, 512, 2048, 10)
DEFAULT = Config(16, 64, 128, 1, 4, 4)
BEST = Config(16, 128, 64, 16, 4, 5)
MACHINE = {"device": "NVIDIA Test", "capability": 121, "vllm": "0.33.0", "torch": "2.14", "triton": "3.8.0"}


def cost(config: Config) -> float:
    """Microseconds of a made-up GPU: BEST is the fastest of the space, and by a margin."""
    away = sum(
        abs(a.bit_length() - b.bit_length())
        for a, b in zip(vars(config).values(), vars(BEST).values(), strict=True)
    )
    return 100.0 + 10.0 * float(away)


class FakeBench:
    """A GPU that is its cost function and some noise; configurations in `failed` do not run."""

    def __init__(
        self, failed: dict[Config, str] | None = None, noise: float = 0.002, flat: bool = False
    ) -> None:
        self.failed = {} if failed is None else failed
        self.noise, self.flat = noise, flat
        self.random = random.Random(1)
        self.ready: set[Config] = set()
        self.prepared: list[Config] = []

    def prepare(self, config: Config) -> bool:
        if config in self.failed:
            return False
        self.ready.add(config)
        self.prepared.append(config)
        return True

    def sample(self, config: Config) -> float:
        assert config in self.ready, "timed without having been prepared"
        return (100.0 if self.flat else cost(config)) * (1 + self.random.uniform(-self.noise, self.noise))

    def release(self, config: Config) -> None:
        self.ready.discard(config)


def never() -> bool:
    return False


# -- the search space ---------------------------------------------------------------------------------------------


def test_brute_force_is_what_vllms_tuner_times() -> None:
    assert len(brute_force()) == len(set(brute_force())) == 1920
    assert len(BATCH_SIZES) == 18


@pytest.mark.parametrize(
    ("config", "capability", "wanted"),
    [
        (Config(16, 128, 64, 1, 4, 5), 121, 36864),
        (Config(64, 128, 128, 1, 4, 3), 121, 49152),
        (Config(128, 128, 128, 1, 8, 4), 121, 98304),
        (Config(128, 128, 128, 1, 8, 4), 90, 131072),
    ],
)
def test_shared_memory_rule(config: Config, capability: int, wanted: int) -> None:
    assert shared_memory(config, 1, capability) == wanted


@pytest.mark.parametrize(
    ("config", "batch", "reason"),
    [
        (Config(128, 256, 128, 1, 8, 4), 4096, "shared memory"),
        (Config(256, 256, 64, 1, 4, 2), 4096, "registers"),
        (Config(32, 64, 64, 1, 4, 2), 16, "padding"),
        (Config(32, 64, 64, 1, 4, 2), 24, None),
        (Config(16, 128, 64, 1, 4, 5), 1, None),
    ],
)
def test_what_is_not_even_compiled(config: Config, batch: int, reason: str | None) -> None:
    assert refusal(config, SHAPE, batch, 121) == reason


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_pruning_keeps_count(batch: int) -> None:
    kept, dropped = candidates(SHAPE, batch, 121)
    assert len(kept) + sum(dropped.values()) == 1920
    assert all(shared_memory(config) <= 101376 for config in kept)
    assert DEFAULT in kept


def test_a_layer_that_is_narrower_than_a_tile() -> None:
    kept, dropped = candidates(Shape(8, 64, 64, 2), 4096, 121)
    assert dropped["layer size"] and all(config.block_k <= 64 for config in kept)


def test_block_quantisation_keeps_blocks_whole() -> None:
    kept, _ = candidates(Shape(8, 512, 512, 2, "fp8-block", (128, 128)), 64, 121)
    assert {config.block_k for config in kept} == {64, 128}


def test_a_gpu_that_the_table_lacks() -> None:
    with pytest.raises(ConfigError, match=r"Capability 75 .* add it"):
        candidates(SHAPE, 1, 75)


def test_batch_sizes_that_run_the_same_kernel() -> None:
    classes = {batch: launch_class(SHAPE, batch) for batch in BATCH_SIZES}
    assert classes[1] == classes[2] == classes[4] == (True, False)
    assert classes[8] == (True, True)
    assert len(set(classes.values())) == 3


@pytest.mark.parametrize("numbers", [(0, 512, 2048, 1), (8, 512, 2048, 9)])
def test_no_layer(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match="is not a MoE layer"):
        Shape(*numbers)


# -- halving ------------------------------------------------------------------------------------------------------


def test_groups_are_left_for_later() -> None:
    pool = candidates(SHAPE, 64, 121)[0]
    tiles = halving.cores(pool, [BEST])
    assert len(tiles) * 4 == len(pool)
    assert {config.group_m for config in tiles} == {1}
    assert tiles[0] == replace(BEST, group_m=1)
    assert tiles == halving.cores(pool, [BEST]), "the order is the same in every run"


def test_first_look_times_a_hopeless_one_once_and_stops_in_time() -> None:
    good, bad = BEST, Config(256, 32, 256, 64, 8, 2)
    bench = FakeBench()
    seen = halving.first_look([good, bad], bench, never, patience=1.2)
    assert seen[good] < seen[bad] and not bench.ready
    late = iter([False, True])
    assert list(halving.first_look([good, bad, DEFAULT], FakeBench(), lambda: next(late))) == [good, bad]


def test_first_look_leaves_out_what_cannot_run() -> None:
    assert halving.first_look([BEST, DEFAULT], FakeBench({BEST: "out of shared memory"}), never).keys() == {
        DEFAULT
    }


def test_halving_finds_the_best() -> None:
    pool = [*candidates(SHAPE, 64, 121)[0][:200], BEST]
    bench = FakeBench(noise=0.05)
    finalists = halving.halve(pool, bench, never)
    assert finalists[0] == BEST and len(finalists) == halving.FINALISTS
    assert bench.ready == set(finalists), "what was dropped is released"


def test_halving_ends_at_once_when_time_is_up() -> None:
    bench = FakeBench()
    assert len(halving.halve(candidates(SHAPE, 1, 121)[0], bench, lambda: True)) == halving.FINALISTS


def test_nothing_that_runs() -> None:
    assert halving.halve([BEST], FakeBench({BEST: "no"}), never) == []


def test_a_faster_one_wins() -> None:
    verdict = halving.decide([BEST, DEFAULT], DEFAULT, FakeBench())
    assert verdict.tuned and verdict.config == BEST
    assert verdict.ratio == pytest.approx(cost(BEST) / cost(DEFAULT), rel=0.02)
    assert len(verdict.default_us) == len(verdict.config_us) == halving.PAIRS


@pytest.mark.parametrize(
    "bench", [FakeBench(flat=True), FakeBench(flat=True, noise=0.2)], ids=["equal", "noisy"]
)
def test_within_the_noise_the_default_stays(bench: FakeBench) -> None:
    verdict = halving.decide([BEST], DEFAULT, bench)
    assert (verdict.config, verdict.tuned, verdict.ratio) == (DEFAULT, False, 1.0)


def test_a_slower_one_never_wins() -> None:
    assert halving.decide([DEFAULT], BEST, FakeBench()).config == BEST


def test_a_default_that_does_not_run_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="default"):
        halving.decide([BEST], DEFAULT, FakeBench({DEFAULT: "no"}))


# -- the whole tuner over a made-up GPU ---------------------------------------------------------------------------


class FakeGpu:
    """Stands in for moe_config.bench."""

    TOLERANCE = 0.02

    def __init__(self) -> None:
        self.benches: list[FakeBench] = []
        self.compiled: list[tuple[int, Config]] = []

    def GraphBench(self, layer: Any, batch: int) -> FakeBench:  # noqa: N802  (named as in bench.py)
        self.benches.append(FakeBench())
        return self.benches[-1]

    def compile_ahead(self, shape: Shape, wanted: Sequence[Any], seconds: float, report: Any) -> int:
        self.compiled += wanted
        report(len(wanted), len(wanted))
        return len(wanted)

    def default_config(self, shape: Shape, batch: int) -> Config:
        return DEFAULT


class FakeLayer:
    """A layer whose results are right, except under `wrong`."""

    def __init__(self, wrong: frozenset[Config] = frozenset()) -> None:
        self.shape, self._wrong = SHAPE, wrong

    def error(self, config: Config, batch: int) -> float:
        return 0.5 if config in self._wrong else 0.003


def tuner(path: Path, gpu: FakeGpu, layer: FakeLayer) -> tune.Tuner:
    return tune.Tuner(gpu, layer, 121, Journal(path / "state.json", SHAPE, MACHINE), tune.Progress())


def test_whole_run(tmp_path: Path) -> None:
    gpu = FakeGpu()
    made = tuner(tmp_path, gpu, FakeLayer())
    made.run([1, 4, 64], 60)
    assert {batch: verdict["tuned"] for batch, verdict in made.journal.verdicts.items()} == {
        1: True,
        4: True,
        64: True,
    }
    assert made.journal.verdicts[64]["entry"] == BEST.as_entry()
    assert len(gpu.compiled) == len(set(gpu.compiled)), "nothing is compiled twice"
    tiles = [(batch, config) for batch, config in gpu.compiled if config.group_m == 1]
    assert {batch for batch, _ in tiles} == {1, 64}, "batch 4 runs the kernels of batch 1"
    tried = sum(map(len, made.journal.looks.values()))
    assert tried < 3 * 1920 / 4


def test_a_second_run_goes_on(tmp_path: Path) -> None:
    tuner(tmp_path, FakeGpu(), FakeLayer()).run([1], 60)
    gpu = FakeGpu()
    made = tuner(tmp_path, gpu, FakeLayer())
    made.run([1, 8], 60)
    assert set(made.journal.verdicts) == {1, 8}
    assert all(batch == 8 for batch, _ in gpu.compiled) and len(gpu.benches) == 2
    again = FakeGpu()
    tuner(tmp_path, again, FakeLayer()).run([1, 8], 60)
    assert not again.compiled and not again.benches


def test_a_wrong_result_never_wins(tmp_path: Path) -> None:
    made = tuner(tmp_path, FakeGpu(), FakeLayer(frozenset({BEST})))
    made.run([64], 60)
    assert made.journal.verdicts[64]["entry"] != BEST.as_entry()
    assert "wrong result" in made.journal.failed[BEST]


def test_a_wrong_default_stops_the_tuner(tmp_path: Path) -> None:
    everything = frozenset([*brute_force(), DEFAULT])
    with pytest.raises(ConfigError, match="do not serve with this vLLM"):
        tuner(tmp_path, FakeGpu(), FakeLayer(everything)).run([64], 60)


def test_state_of_another_layer_is_refused(tmp_path: Path) -> None:
    tuner(tmp_path, FakeGpu(), FakeLayer()).run([1], 60)
    with pytest.raises(ConfigError, match="another layer, GPU or version"):
        Journal(tmp_path / "state.json", Shape(256, 512, 2048, 8), MACHINE)
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="remove it to start again"):
        Journal(tmp_path / "state.json", SHAPE, MACHINE)


def test_the_file_has_a_key_for_every_size() -> None:
    verdicts = {8: {"entry": BEST.as_entry()}}
    made = tuned_file(verdicts, dict.fromkeys(BATCH_SIZES, DEFAULT), "3.8.0")
    assert list(made) == ["triton_version", *map(str, BATCH_SIZES)]
    assert made["8"] == BEST.as_entry() and made["16"] == DEFAULT.as_entry()
    assert json.loads(json.dumps(made)) == made


def test_a_time_slice_is_shared_evenly() -> None:
    now = [0.0]
    slice_ = tune.Slice(90, lambda: now[0])
    first = slice_.part(3)
    now[0] = 29
    assert not first()
    now[0] = 30
    assert first()
    second = slice_.part(2)
    now[0] = 59
    assert not second()
    now[0] = 200
    assert second() and slice_.part(1)()


# -- the plot -----------------------------------------------------------------------------------------------------


def test_plot_of_a_run(tmp_path: Path) -> None:
    made = tuner(tmp_path, FakeGpu(), FakeLayer())
    made.run([1, 64], 60)
    assert plot.draw_tuned(made.journal.as_dict(), tmp_path / "tuned.svg").startswith("plot in ")
    drawn = ElementTree.parse(tmp_path / "tuned.svg").getroot()
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert {"1", "64", "tuned", "vLLM's default", "tuned / default"} <= set(texts)
    assert len([element for element in drawn.iter() if element.tag.endswith("circle")]) == 3 * 2
    assert "no batch size" in plot.draw_tuned({"verdicts": {}}, tmp_path / "none.svg")
