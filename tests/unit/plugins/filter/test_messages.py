"""Sentences for the operator: causes of errors, preflight rows, speeds."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.filter import messages


def test_every_filter_is_offered() -> None:
    assert set(messages.FilterModule().filters()) == {"explain_text", "preflight_sentences", "speeds"}


def test_known_error_is_explained_with_its_line() -> None:
    said = messages.explain_text(
        "pulling\nError response from daemon: unauthorized: authentication required\n"
    )
    assert "unauthorized: authentication required" in said
    assert said != "Output: pulling / Error response from daemon: unauthorized: authentication required"


def test_unknown_error_shows_its_last_lines() -> None:
    assert messages.explain_text("one\ntwo\n three \nfour\n") == "Output: two / three / four"


def test_preflight_row_becomes_sentences() -> None:
    row = {
        "check": "driver",
        "status": "fail",
        "found": "590.44",
        "reason": "It hangs.",
        "remedy": "Install 580.",
    }
    assert messages.preflight_sentences([row], "spark1") == ["spark1: driver: 590.44. It hangs. Install 580."]
    assert messages.preflight_sentences([], "spark1") == []


def test_comparison() -> None:
    before, after = {"1": [50.0] * 5, "8": [100.0, 101.0, 99.0]}, {"1": [55.0] * 5, "8": [90.0] * 3}
    assert messages.speeds(before, after) == [
        "batch 1: 50.0 tokens/s (50.0 to 50.0) before, 55.0 tokens/s (55.0 to 55.0) after (+10.0 %, 5 runs each)",
        "batch 8: 100.0 tokens/s (99.0 to 101.0) before, 90.0 tokens/s (90.0 to 90.0) after (-10.0 %, 3 runs each)",
    ]


def test_a_batch_size_that_was_measured_once_is_not_compared() -> None:
    assert messages.speeds({"1": [50.0], "8": []}, {"8": [90.0]}) == []
