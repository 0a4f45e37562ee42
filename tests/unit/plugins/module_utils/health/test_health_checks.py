"""The checks of the patch and the MoE config: each failure that they claim to catch happens here."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container, Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import LogFacts
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Document
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.routing import (
    KnownLog,
    config_file_check,
    config_loaded_check,
    cutlass_check,
    default_config_check,
    manifest_check,
    markers_check,
    untaken_routes,
)

FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
OTHER = "E=256,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
NO_NAME = Document({}, "No module named moe_config")


def facts(**given: Any) -> LogFacts:
    """A log that starts at its beginning and says nothing else, unless given otherwise."""
    base = LogFacts("serving", "", True, [], [], None, None)
    return base._replace(**given)


def log(origin: str = "journal", **given: Any) -> KnownLog:
    """The same log, read from `origin`."""
    return KnownLog(facts(**given), origin)


def manifest(linear: str = "patched", moe: str = "patched") -> Document:
    """A patch manifest with these states."""
    routes = [{"name": "linear", "state": linear}, {"name": "moe", "state": moe}]
    return Document({"vllm_version": "0.33.0", "routes": routes})


def name(markers: list[str], **given: Any) -> Document:
    """What `moe_config name --json` answers for a per-channel FP8 MoE model."""
    content = {
        "expected_markers": markers,
        "file": FILE,
        "found": f"/c/{FILE}",
        "searched": ["/tuned", "/c"],
        "similar": [],
        "reason": "",
        **given,
    }
    return Document(content)


def config_checks(moe_config: Document, known: KnownLog, required: bool = True) -> list[Finding]:
    """Both findings about the MoE config file."""
    return [config_file_check(moe_config, required), config_loaded_check(moe_config, known, required)]


@pytest.mark.parametrize(
    "states", [("patched", "patched"), ("upstream", "patched"), ("upstream", "upstream")]
)
def test_manifest_in_place(states: tuple[str, str]) -> None:
    assert manifest_check(manifest(*states)).status == "pass"


@pytest.mark.parametrize(
    "document",
    [
        Document({}, "cat: no such file"),
        Document({}),
        manifest("original", "patched"),
        Document({"routes": "x"}),
    ],
)
def test_manifest_of_an_unpatched_image(document: Document) -> None:
    row = manifest_check(document)
    assert row.status == "fail"
    assert "image" in row.remedy


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
    row = markers_check(name(expected), {}, log(markers=seen))
    assert row.status == status
    assert (row.remedy != "") == (status == "fail")


@pytest.mark.parametrize(
    ("states", "switch", "backend", "reason"),
    [
        (manifest(), "auto", (), "switched to auto"),
        (manifest(linear="upstream"), "torch", (), "routed by upstream"),
        (manifest(), "torch", ("--linear-backend", "cutlass"), "--linear-backend cutlass"),
    ],
)
def test_a_route_that_is_not_taken_prints_no_marker(
    states: Document, switch: str, backend: tuple[str, ...], reason: str
) -> None:
    untaken = untaken_routes(Wanted(fp8_linear=switch), Container(arguments=backend), states)
    row = markers_check(name(["linear", "moe"]), untaken, log(markers=["moe"]))
    assert row.status == "pass"
    assert reason in row.found
    row = markers_check(name(["linear", "moe"]), untaken, log(markers=["linear", "moe"]))
    assert row.status == "fail"


def test_a_backend_that_is_explicitly_auto_is_not_a_choice() -> None:
    container = Container(arguments=("--linear-backend", "auto"))
    untaken = untaken_routes(Wanted(), container, manifest())
    assert untaken == {}
    assert markers_check(name(["linear"]), untaken, log()).status == "fail"


def test_a_lost_start_of_the_log_warns_and_evidence_is_named() -> None:
    assert markers_check(name(["moe"]), {}, log("none")).status == "warn"
    row = markers_check(name(["moe"]), {}, log("evidence", markers=["moe"]))
    assert row.status == "pass"
    assert "earlier check" in row.found


def test_unknown_expectation_fails() -> None:
    assert markers_check(NO_NAME, {}, log()).status == "fail"


def test_config_present_and_loaded() -> None:
    rows = config_checks(name([]), log(config_loaded=[f"/tuned/{FILE}"]))
    assert [row.status for row in rows] == ["pass", "pass"]


@pytest.mark.parametrize(("required", "status"), [(True, "fail"), (False, "warn")])
def test_config_missing_names_other_shapes(required: bool, status: str) -> None:
    rows = config_checks(name([], found=None, similar=[OTHER]), log(), required)
    assert [row.status for row in rows] == [status, status]
    assert FILE in rows[0].found
    assert OTHER in rows[0].found
    assert "dgx_vllm_tuned_config_dir" in rows[0].remedy


def test_config_of_another_shape_loaded() -> None:
    row = config_loaded_check(name([]), log(config_loaded=[f"/c/{OTHER}"]), True)
    assert row.status == "fail"
    assert "another shape" in row.found


def test_config_present_but_not_loaded() -> None:
    row = config_loaded_check(name([]), log(), True)
    assert row.status == "fail"
    assert "Restart" in row.remedy


def test_config_unknown_when_the_log_is_gone() -> None:
    assert config_loaded_check(name([]), log("none"), True).status == "warn"


def test_dense_model_needs_no_config() -> None:
    rows = config_checks(name([], file=None, reason="a dense model"), log())
    assert [(row.status, row.found) for row in rows] == [("skip", "a dense model")] * 2


def test_config_name_unknown() -> None:
    rows = config_checks(Document({}, "no such model"), log())
    assert [row.status for row in rows] == ["fail", "skip"]


def log_checks(known: KnownLog, required: bool = True) -> list[Finding]:
    return [default_config_check(known, required), cutlass_check(known)]


def test_log_errors() -> None:
    assert [row.status for row in log_checks(log())] == ["pass", "pass"]
    assert [row.status for row in log_checks(log("none"))] == ["skip", "skip"]
    lines = {
        "default_config": "Using default MoE config.",
        "cutlass_error": "No compiled cutlass_scaled_mm",
    }
    rows = log_checks(log("none", **lines))
    assert [(row.check, row.status) for row in rows] == [
        ("no_default_moe_config", "fail"),
        ("no_cutlass_error", "fail"),
    ]
    assert all(row.remedy for row in rows)
    assert default_config_check(log(**lines), False).status == "warn"
