"""The checks of MoE configs: what was asked for and found, by whom, and what the operator says about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.configs import (
    SHIPPED,
    config_file_check,
    config_in_log_check,
    config_loaded_check,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import KnownLog, LogFacts
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Inside, parse_inside

from helpers.records import Process, entry, experts, inside

OTHER = "E=96,N=320,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
SHAPE = (96, 320)


def told(*records: Any, **given: Any) -> Inside:
    return parse_inside(json.dumps(inside(*map(entry, records), **given)), "")


def checked(file: str, found: bool, tmp: Path, required: bool = False, **given: Any) -> Finding:
    """One process with experts of SHAPE asked for `file`."""
    made = Process().looks_for(file, found, tmp).loads(experts("TRITON", shape=SHAPE))
    return config_loaded_check(Container(), told(made.record(), **given), required)


def test_the_shipped_file_is_asserted_whatever_the_model() -> None:
    row = config_file_check(told())
    assert row.status == "pass"
    assert row.found.startswith("/app/vllm/vllm/model_executor/layers/fused_moe/configs/")
    for listing in ([], None, [OTHER]):
        assert config_file_check(told(shipped=listing)).status == "fail"
    assert config_file_check(told(promised=False)).status == "pass"


def test_a_file_that_was_found(tmp_path: Path) -> None:
    row = checked(OTHER, True, tmp_path, required=True)
    assert (row.status, row.found) == ("pass", str(tmp_path / OTHER))


@pytest.mark.parametrize(("required", "status"), [(False, "warn"), (True, "fail")])
def test_a_file_that_nobody_has_is_a_warning_unless_it_is_required(
    required: bool, status: str, tmp_path: Path
) -> None:
    row = checked(OTHER, False, tmp_path, required)
    assert row.status == status
    assert OTHER in row.found
    assert "playbooks/tune.yml" in row.remedy


@pytest.mark.parametrize("place", ["shipped", "tuned"])
def test_a_file_that_is_there_and_was_not_found_is_a_failure(place: str, tmp_path: Path) -> None:
    row = checked(OTHER, False, tmp_path, **{place: [SHIPPED, OTHER]})
    assert row.status == "fail"
    assert "Restart" in row.remedy


def test_the_model_that_the_shipped_file_is_for_must_have_it(tmp_path: Path) -> None:
    assert checked(SHIPPED, False, tmp_path, shipped=[]).status == "fail"


@pytest.mark.parametrize("required", [False, True])
def test_a_draft_layer_never_makes_a_server_unhealthy(required: bool, tmp_path: Path) -> None:
    made = Process().looks_for(SHIPPED, True, tmp_path).looks_for(OTHER, False, tmp_path)
    made.loads(experts("TRITON", shape=(512, 512)), draft=[experts("TRITON", shape=SHAPE)])
    row = config_loaded_check(Container(), told(made.record()), required)
    assert row.status == "warn"
    assert f"{OTHER} (of the draft model)" in row.found


def test_a_shape_that_both_have_is_the_models_own(tmp_path: Path) -> None:
    made = Process().looks_for(OTHER, False, tmp_path)
    made.loads(experts("TRITON", shape=SHAPE), draft=[experts("TRITON", shape=SHAPE)])
    assert config_loaded_check(Container(), told(made.record()), True).status == "fail"


def test_a_shape_that_neither_has_is_unknown_and_no_failure(tmp_path: Path) -> None:
    made = Process().looks_for(OTHER, False, tmp_path)
    made.loads(experts("TRITON", shape=(8, 64)), draft=[experts("TRITON", shape=(4, 64))])
    row = config_loaded_check(Container(), told(made.record()), True)
    assert row.status == "warn"
    assert "unknown part" in row.found


def test_a_draft_model_that_was_not_counted_is_not_taken_for_the_model(tmp_path: Path) -> None:
    box = Container(arguments=("serve", "--speculative-config", '{"method": "mtp"}'))
    made = Process().looks_for(OTHER, False, tmp_path).loads(experts("TRITON", shape=(512, 512)))
    assert config_loaded_check(box, told(made.record()), True).status == "warn"
    made = Process().looks_for(OTHER, False, tmp_path).loads(experts("TRITON", shape=SHAPE))
    assert config_loaded_check(box, told(made.record()), True).status == "fail"


def test_no_layer_asked(tmp_path: Path) -> None:
    made = Process().loads(experts("FLASHINFER_CUTLASS", enum="UnquantizedMoeBackend"))
    assert config_loaded_check(Container(), told(made.record()), True).status == "skip"


def log(origin: str = "journal", **given: Any) -> KnownLog:
    return KnownLog(LogFacts("serving", "", True, [], [], None, None)._replace(**given), origin)


DEFAULT = f"Using default MoE config. Performance might be sub-optimal! Config file not found at /c/{OTHER}"


@pytest.mark.parametrize(
    ("known", "words", "status"),
    [
        (log(config_loaded=[f"/c/{OTHER}"]), (), "pass"),
        (log(default_config=DEFAULT), (), "warn"),
        (log(default_config=DEFAULT.replace(OTHER, SHIPPED)), (), "fail"),
        (log(default_config=DEFAULT.replace(OTHER, SHIPPED)), ("--speculative-config", "{}"), "warn"),
        (log("none"), (), "skip"),
        (log("evidence"), (), "skip"),
        (log(), (), "skip"),
    ],
)
def test_an_image_without_records_is_judged_by_its_log(known: KnownLog, words: Any, status: str) -> None:
    box = Container(arguments=words)
    assert config_in_log_check(box, told(promised=False), known, False).status == status


def test_a_required_file_of_an_image_without_records() -> None:
    row = config_in_log_check(Container(), told(promised=False), log(default_config=DEFAULT), True)
    assert row.status == "fail"
