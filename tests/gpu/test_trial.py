"""The judgements of the GPU trial, without a GPU: what it must call broken, and its kept results."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import ab
import pytest
import report
import toy
from server import Server

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "h100"
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
        assert (RESULTS / name).read_text(encoding="utf-8").startswith("# H100, capability assumed\n")
    assert "H100, capability assumed" in (RESULTS / "ab.svg").read_text(encoding="utf-8")
    assert report.table(KEPT) == (RESULTS / "ab.md").read_text(encoding="utf-8")


def test_kept_runs_kept_their_promises() -> None:
    assert not KEPT["broken"] and not ab.slower(KEPT["rates"])
    texts: dict[str, Any] = KEPT["greedy"]["texts"]
    assert len(texts) == 4 and all(found == texts["stock"] for found in texts.values())
    assert all(len(values) >= 5 for sides in KEPT["rates"].values() for values in sides.values())


def test_kept_tuned_file_is_what_the_timings_say() -> None:
    (path,) = (RESULTS / "tuned").glob("E=*.json")
    raw = json.loads((RESULTS / "tuned" / "timings.json").read_text(encoding="utf-8"))
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written.pop("triton_version") == raw["identity"]["machine"]["triton"]
    assert written == {batch: verdict["entry"] for batch, verdict in raw["verdicts"].items()}
    assert raw["tried"] < raw["brute_force"] / 7
    assert all(verdict["ratio"] <= 1 for verdict in raw["verdicts"].values())
