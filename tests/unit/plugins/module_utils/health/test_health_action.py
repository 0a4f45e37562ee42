"""The waiting and the evaluation on the operator's side, with a clock that only sleeping moves."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.action.dgx_vllm_health import (
    OWN,
    Progress,
    describe,
    evaluate,
    own_arguments,
    wait,
)
from ansible_collections.dgx_vllm.spark.plugins.modules.dgx_vllm_health import argument_spec

OWN_DEFAULTS = {"timeout": 60, "interval": 5.0, "fail": True, "mode": "full"}


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds since the test began."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


def probe(phase: str, **given: Any) -> dict[str, Any]:
    """What the module answers to a probe."""
    base = {
        "phase": phase,
        "progress": "",
        "elapsed_s": 1,
        "ready": False,
        "failed_unit": False,
        "n_restarts": 0,
    }
    return {**base, **given}


def waited(
    probes: list[dict[str, Any]], timeout: float = 60, interval: float = 5
) -> tuple[Any, list[str], list[int]]:
    """Wait over these answers, the last one again and again: (result, lines shown, restart bases)."""
    clock, lines, bases = Clock(), [], []

    def look(mode: str, restarts_before: int) -> dict[str, Any]:
        assert mode == "probe"
        bases.append(restarts_before)
        return dict(probes[min(len(bases), len(probes)) - 1])

    result = wait(look, Progress("spark1", lines.append, clock.monotonic), timeout, interval, clock)
    return result, lines, bases


def test_waits_until_ready_and_tells_each_step_once() -> None:
    shards = "Loading safetensors checkpoint shards: "
    result, lines, _bases = waited(
        [
            probe("starting"),
            probe("loading weights", progress=shards + "0%"),
            probe("loading weights", progress=shards + "0%"),
            probe("loading weights", progress=shards + "40%", elapsed_s=35),
            probe("serving", ready=True),
        ]
    )
    assert result["ready"]
    assert result["waited_s"] == 20
    assert lines == [
        "spark1: starting (1 s)",
        "spark1: loading weights 0 % (1 s)",
        "spark1: loading weights 40 % (35 s)",
    ]


def test_says_every_half_minute_that_nothing_changed() -> None:
    result, lines, _bases = waited([probe("compiling")], timeout=65)
    assert result["timed_out"]
    assert len(lines) == 3


@pytest.mark.parametrize("last", [probe("failed", failed_unit=True), {"failed": True, "msg": "no python"}])
def test_ends_at_once_when_the_unit_or_the_module_failed(last: dict[str, Any]) -> None:
    result, _lines, _bases = waited([probe("starting"), last], timeout=10000)
    assert result["waited_s"] == 5
    assert "timed_out" not in result


def test_the_first_restart_counter_is_the_base() -> None:
    _result, _lines, bases = waited(
        [probe("starting", n_restarts=2), probe("failed", failed_unit=True, n_restarts=3)]
    )
    assert bases == [-1, 2]


def test_no_timeout_looks_once() -> None:
    result, lines, bases = waited([probe("starting")], timeout=0)
    assert len(bases) == 1
    assert not result["timed_out"]
    assert lines == []


@pytest.mark.parametrize(
    ("phase", "progress", "words"),
    [
        ("starting", "", "starting"),
        ("starting", "waits for up to 300 s: no CDI", "starting, waits for up to 300 s: no CDI"),
        ("loading weights", "Loading safetensors checkpoint shards: 40%", "loading weights 40 %"),
        (
            "warming up",
            "Capturing CUDA graphs (mixed): 51%",
            "warming up, Capturing CUDA graphs (mixed) 51 %",
        ),
    ],
)
def test_words(phase: str, progress: str, words: str) -> None:
    assert describe(probe(phase, progress=progress)) == words


def test_unhealthy_fails_with_the_summary() -> None:
    result = evaluate(probe("serving", healthy=False, summary="markers: x."), "spark1", OWN_DEFAULTS, False)
    assert result["failed"]
    assert result["msg"] == "spark1: markers: x."


def test_report_only() -> None:
    result = evaluate(probe("serving", healthy=False), "spark1", {**OWN_DEFAULTS, "fail": False}, False)
    assert "failed" not in result


def test_every_row_names_the_host_of_the_inventory() -> None:
    rows = [{"where": "", "check": "unit", "status": "pass"}]
    result = evaluate(probe("serving", healthy=True, checks=rows), "spark1", OWN_DEFAULTS, False)
    assert [row["where"] for row in result["checks"]] == ["spark1"]


def test_healthy_passes() -> None:
    assert "failed" not in evaluate(probe("serving", healthy=True, ready=True), "spark1", OWN_DEFAULTS, False)


def test_timeout_says_what_it_was_doing() -> None:
    result = evaluate(probe("loading weights", timed_out=True, healthy=False), "spark1", OWN_DEFAULTS, False)
    assert result["failed"]
    assert "within 60 s" in result["msg"]
    assert "loading weights" in result["msg"]
    assert "dgx_vllm_health_timeout" in result["msg"]


@pytest.mark.parametrize(
    ("answer", "skipped"),
    [
        (probe("failed", failed_unit=True, unit_exists=False), True),
        (probe("starting", unit_exists=True), True),
        (probe("serving", unit_exists=True, ready=True, healthy=False), False),
    ],
)
def test_check_mode_never_fails(answer: dict[str, Any], skipped: bool) -> None:
    result = evaluate(answer, "spark1", OWN_DEFAULTS, True)
    assert "failed" not in result
    assert result.get("skipped", False) is skipped
    assert bool(result.get("skip_reason")) is skipped


def test_a_module_that_could_not_run_is_passed_on() -> None:
    broken = {"failed": True, "msg": "no python"}
    assert evaluate(dict(broken), "spark1", OWN_DEFAULTS, False) == broken


def test_own_arguments_are_typed_and_refused() -> None:
    own, error = own_arguments({"timeout": "90", "fail": "false", "port": 1})
    assert (own["timeout"], own["fail"], own["interval"], error) == (90, False, 5, "")
    assert "timeout" in own_arguments({"timeout": "soon"})[1]


def test_both_specs_agree() -> None:
    spec = argument_spec()
    assert {name: spec[name] for name in OWN} == OWN
