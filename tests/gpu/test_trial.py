"""The judgements of the GPU trial, without a GPU: what it must call broken, and its kept results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import ab
import layer
import pytest
import report
import toy
from server import Server

RESULTS = Path(__file__).resolve().parent / "results" / "h100"
PAGES = Path(__file__).resolve().parents[2] / "docs" / "results" / "h100"
KEPT = json.loads((RESULTS / "ab.json").read_text(encoding="utf-8"))


def rates(tuned: list[float]) -> dict[str, dict[str, list[float]]]:
    return {"decode": {"patched-default": [100.0] * len(tuned), "patched-tuned": tuned}}


@pytest.mark.parametrize(
    ("tuned", "broken"),
    [
        ([95.0] * 5, True),
        ([99.0] * 5, False),
        ([90.0, 90.0, 90.0, 110.0, 110.0], False),
        ([120.0] * 5, False),
    ],
    ids=["slower", "within-slack", "pairs-disagree", "faster"],
)
def test_a_slower_tuned_config_is_named(tuned: list[float], broken: bool) -> None:
    assert bool(ab.slower(rates(tuned))) is broken


def timed(tuned: list[float]) -> layer.Batches:
    entries = {"default": "M16", "tuned": "M32"}
    return {"8": {"configs": entries, "us": {"default": [100.0] * len(tuned), "tuned": tuned}}}


@pytest.mark.parametrize(
    ("tuned", "broken"),
    [
        ([103.0] * 5, True),
        ([100.5] * 5, False),
        ([103.0, 103.0, 103.0, 95.0, 95.0], False),
        ([70.0] * 5, False),
    ],
    ids=["slower", "within-slack", "pairs-disagree", "faster"],
)
def test_a_slower_entry_is_named(tuned: list[float], broken: bool) -> None:
    found = layer.slower(timed(tuned))
    assert bool(found) is broken
    assert not broken or found == [
        "layer, batch 8: the tuned entry M32 takes 1.030 of the default's time (M16)."
    ]


def log(name: str, text: str, tuned: Path | None = None) -> Server:
    return cast(Server, SimpleNamespace(text=lambda: text, variant=SimpleNamespace(name=name, tuned=tuned)))


MARKED = "\n".join(ab.MARKERS.values())


@pytest.mark.parametrize(
    ("server", "sentences"),
    [
        (log("stock", ""), 0),
        (log("stock", MARKED), 2),
        (log("patched-default", MARKED + "\nUsing default MoE config."), 0),
        (log("patched-default", MARKED), 1),
        (log("patched-seed", MARKED + "\nUsing configuration from /seed/E=1.json", Path("/seed")), 0),
        (log("patched-seed", MARKED + "\nUsing configuration from /other/E=1.json", Path("/seed")), 1),
        (log("patched-tuned", "Using configuration from /t/E=1.json", Path("/t")), 2),
    ],
)
def test_logs(server: Server, sentences: int) -> None:
    assert len(ab.check_logs([server])) == sentences


def test_the_toy_model_is_the_layer_that_is_tuned(tmp_path: Path) -> None:
    config = json.loads((toy.write(tmp_path) / "config.json").read_text(encoding="utf-8"))
    layer = [
        config[key] for key in ("num_experts", "moe_intermediate_size", "hidden_size", "num_experts_per_tok")
    ]
    assert layer == [512, 512, 2048, 10]


def test_kept_results_say_that_the_capability_was_assumed() -> None:
    for name in ("README.md", "ab.md"):
        assert (PAGES / name).read_text(encoding="utf-8").startswith("# H100, capability assumed\n")
    assert "H100, capability assumed" in (RESULTS / "ab.svg").read_text(encoding="utf-8")
    assert report.table(KEPT) == (PAGES / "ab.md").read_text(encoding="utf-8")


def test_kept_runs_kept_their_promises() -> None:
    assert not KEPT["broken"] and not ab.slower(KEPT["rates"])
    texts: dict[str, Any] = KEPT["greedy"]["texts"]
    assert len(texts) == 4 and all(found == texts["stock"] for found in texts.values())
    assert all(len(values) >= 5 for sides in KEPT["rates"].values() for values in sides.values())


def test_no_kept_entry_is_slower_than_the_default() -> None:
    kept = json.loads((RESULTS / "layer.json").read_text(encoding="utf-8"))
    assert not layer.slower(kept)
    assert all(len(times) >= 5 for found in kept.values() for times in found["us"].values())


def test_kept_tuned_file_is_what_the_timings_say() -> None:
    (path,) = (RESULTS / "tuned").glob("E=*.json")
    raw = json.loads((RESULTS / "tuned" / "timings.json").read_text(encoding="utf-8"))
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written.pop("triton_version") == raw["identity"]["machine"]["triton"]
    assert written == {batch: verdict["entry"] for batch, verdict in raw["verdicts"].items()}
    assert raw["tried"] < raw["brute_force"] / 7
    assert all(verdict["ratio"] <= 1 for verdict in raw["verdicts"].values())


# -- the one command, with a Python that only notes what it was asked ----------------------------------------------

FAKE = """#!/bin/sh
echo "$*" >>"$(dirname "$0")/calls"
after() { while [ "$1" != "$flag" ]; do shift; done; echo "$2"; }
case "$*" in
  *pip*) flag=--target; mkdir -p "$(after "$@")" ;;
  *moe_config*) flag=--output; mkdir -p "$(after "$@")"; touch "$(after "$@")/E=1.json"; exit ${TUNER:-0} ;;
  *layer.py*) flag=--out; touch "$(after "$@")/layer.json"; exit ${LAYER:-0} ;;
  *ab.py*) flag=--out; touch "$(after "$@")/ab.json" ;;
esac
"""


class Trial:
    """run.sh with the fake; `parts` are the parts of the trial that a run began."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "python").write_text(FAKE, encoding="utf-8")
        (place / "python").chmod(0o755)
        (place / "wheels").mkdir()
        (place / "wheels/vllm-1.whl").touch()

    def run(self, *more: str, **environment: str) -> tuple[int, list[str], str]:
        calls = self.place / "calls"
        calls.write_text("", encoding="utf-8")
        words = ["--out", str(self.place / "out"), "--python", str(self.place / "python")]
        done = subprocess.run(
            [Path(__file__).with_name("run.sh"), *words, "--wheels", str(self.place / "wheels"), *more],
            env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        names = {"pip": "install", "moe_config": "tune", "layer.py": "layer", "ab.py": "compare"}
        lines = calls.read_text(encoding="utf-8").splitlines()
        parts = [next(part for word, part in names.items() if word in line) for line in lines]
        return done.returncode, parts, done.stdout + done.stderr


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_one_command(trial: Trial) -> None:
    assert trial.run()[:2] == (0, ["install", "tune", "layer", "compare"])
    assert trial.run()[:2] == (0, []), "nothing is measured twice"
    assert trial.run("--again")[:2] == (0, ["tune", "layer", "compare"])


def test_a_part_that_does_not_fit_is_left_to_the_next_run(trial: Trial) -> None:
    status, parts, said = trial.run("--limit", "200")
    assert (status, parts) == (124, ["install", "tune", "layer"]) and "run it again, it goes on" in said
    assert trial.run()[:2] == (0, ["compare"])


def test_a_tuner_that_was_not_through_goes_on(trial: Trial) -> None:
    status, parts, said = trial.run(TUNER="1")
    assert (status, parts) == (2, ["install", "tune"]) and "did not reach every batch size" in said
    assert trial.run()[:2] == (0, ["tune", "layer", "compare"])


def test_a_slower_entry_fails_the_command(trial: Trial) -> None:
    assert trial.run(LAYER="1")[:2] == (1, ["install", "tune", "layer", "compare"])
    assert trial.run()[:2] == (1, []), "it stays broken until it is measured again"
    assert trial.run("--again")[0] == 0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--nothing"], "There is no option --nothing"),
        (["--runs"], "--runs needs a value"),
        (["--limit", "soon"], "are whole seconds"),
        (["--wheels", "/nonexistent"], "/nonexistent has no wheels"),
    ],
)
def test_wrong_options(trial: Trial, more: list[str], sentence: str) -> None:
    status, parts, said = trial.run(*more)
    assert (status, parts) == (2, []) and sentence in said


def test_fewer_than_five_runs_are_refused(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--tuned", str(tmp_path), "--runs", "4"]
    done = subprocess.run(
        [sys.executable, Path(ab.__file__), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "5 or more" in done.stderr
