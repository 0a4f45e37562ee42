"""The judgements, one situation at a time: each failure the check claims to catch happens here."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.checks import (
    config_checks,
    log_checks,
    manifest_check,
    markers_check,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import LogFacts

FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
OTHER = "E=256,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
ON = {"linear": "torch", "moe": "triton"}
NONE: dict[str, str | None] = {"linear": None, "moe": None}


def facts(**given: Any) -> LogFacts:
    """A log that starts at its beginning and says nothing else, unless told otherwise."""
    base = LogFacts("serving", "", True, [], [], None, None)
    return base._replace(**given)


def manifest(linear: str = "patched", moe: str = "patched") -> dict[str, Any]:
    """A patch manifest with these states."""
    routes = [{"name": "linear", "state": linear}, {"name": "moe", "state": moe}]
    return {"vllm_version": "0.33.0", "routes": routes}


def name(markers: list[str], **given: Any) -> dict[str, Any]:
    """What `moe_config name --json` answers for a per-channel FP8 MoE model."""
    return {
        "expected_markers": markers,
        "file": FILE,
        "found": f"/c/{FILE}",
        "searched": ["/tuned", "/c"],
        "similar": [],
        "reason": "",
        **given,
    }


@pytest.mark.parametrize(
    "states", [("patched", "patched"), ("upstream", "patched"), ("upstream", "upstream")]
)
def test_manifest_in_place(states: tuple[str, str]) -> None:
    assert manifest_check(manifest(*states), "")["status"] == "pass"


@pytest.mark.parametrize(
    ("content", "error"),
    [({}, "cat: no such file"), ({}, ""), (manifest("original", "patched"), ""), ({"routes": "x"}, "")],
)
def test_manifest_of_an_unpatched_image(content: dict[str, Any], error: str) -> None:
    row = manifest_check(content, error)
    assert row["status"] == "fail"
    assert "image" in row["remedy"]


@pytest.mark.parametrize(
    ("expected", "seen", "status"),
    [
        (["linear", "moe"], ["linear", "moe"], "pass"),
        (["moe"], ["moe"], "pass"),
        ([], [], "pass"),
        (["linear", "moe"], ["moe"], "fail"),
        (["linear", "moe"], [], "fail"),
        (["moe"], ["linear", "moe"], "fail"),
        ([], ["linear"], "fail"),
    ],
)
def test_markers_must_be_exactly_those_of_the_model(
    expected: list[str], seen: list[str], status: str
) -> None:
    row = markers_check(name(expected), "", manifest(), ON, NONE, facts(markers=seen), "journal")
    assert row["status"] == status
    assert (row["remedy"] != "") == (status == "fail")


@pytest.mark.parametrize(
    ("states", "switches", "explicit", "reason"),
    [
        (manifest(), {"linear": "auto", "moe": "triton"}, NONE, "switched to auto"),
        (manifest(linear="upstream"), ON, NONE, "routed by upstream"),
        (manifest(), ON, {"linear": "cutlass", "moe": None}, "--linear-backend cutlass"),
    ],
)
def test_a_route_that_is_not_taken_prints_no_marker(
    states: dict[str, Any], switches: dict[str, str], explicit: dict[str, str | None], reason: str
) -> None:
    wanted = name(["linear", "moe"])
    row = markers_check(wanted, "", states, switches, explicit, facts(markers=["moe"]), "journal")
    assert row["status"] == "pass"
    assert reason in row["found"]
    row = markers_check(wanted, "", states, switches, explicit, facts(markers=["linear", "moe"]), "journal")
    assert row["status"] == "fail"


def test_explicit_auto_is_no_choice() -> None:
    explicit: dict[str, str | None] = {"linear": "auto", "moe": None}
    row = markers_check(name(["linear"]), "", manifest(), ON, explicit, facts(), "journal")
    assert row["status"] == "fail"


def test_a_lost_start_of_the_log_warns_and_evidence_is_named() -> None:
    wanted = name(["moe"])
    assert markers_check(wanted, "", manifest(), ON, NONE, facts(), "none")["status"] == "warn"
    row = markers_check(wanted, "", manifest(), ON, NONE, facts(markers=["moe"]), "evidence")
    assert row["status"] == "pass"
    assert "earlier check" in row["found"]


def test_unknown_expectation_fails() -> None:
    assert (
        markers_check({}, "No module named moe_config", manifest(), ON, NONE, facts(), "journal")["status"]
        == "fail"
    )


def test_config_present_and_loaded() -> None:
    rows = config_checks(name([]), "", facts(config_loaded=[f"/tuned/{FILE}"]), "journal", True)
    assert [row["status"] for row in rows] == ["pass", "pass"]


@pytest.mark.parametrize(("required", "status"), [(True, "fail"), (False, "warn")])
def test_config_missing_names_other_shapes(required: bool, status: str) -> None:
    rows = config_checks(name([], found=None, similar=[OTHER]), "", facts(), "journal", required)
    assert [row["status"] for row in rows] == [status, status]
    assert FILE in rows[0]["found"]
    assert OTHER in rows[0]["found"]
    assert "dgx_vllm_tuned_config_dir" in rows[0]["remedy"]


def test_config_of_another_shape_loaded() -> None:
    row = config_checks(name([]), "", facts(config_loaded=[f"/c/{OTHER}"]), "journal", True)[1]
    assert row["status"] == "fail"
    assert "another shape" in row["found"]


def test_config_present_but_not_loaded() -> None:
    row = config_checks(name([]), "", facts(), "journal", True)[1]
    assert row["status"] == "fail"
    assert "Restart" in row["remedy"]


def test_config_unknown_when_the_log_is_gone() -> None:
    assert config_checks(name([]), "", facts(), "none", True)[1]["status"] == "warn"


def test_dense_model_needs_no_config() -> None:
    rows = config_checks(name([], file=None, reason="a dense model"), "", facts(), "journal", True)
    assert [(row["status"], row["found"]) for row in rows] == [("skip", "a dense model")] * 2


def test_config_name_unknown() -> None:
    rows = config_checks({}, "no such model", facts(), "journal", True)
    assert [row["status"] for row in rows] == ["fail", "skip"]


def test_log_errors() -> None:
    clean = log_checks(facts(), "journal", True)
    assert [row["status"] for row in clean] == ["pass", "pass"]
    assert [row["status"] for row in log_checks(facts(), "none", True)] == ["skip", "skip"]
    told = facts(default_config="Using default MoE config.", cutlass_error="No compiled cutlass_scaled_mm")
    rows = log_checks(told, "none", True)
    assert [(row["check"], row["status"]) for row in rows] == [
        ("no_default_moe_config", "fail"),
        ("no_cutlass_error", "fail"),
    ]
    assert all(row["remedy"] for row in rows)
    assert log_checks(told, "journal", False)[0]["status"] == "warn"
