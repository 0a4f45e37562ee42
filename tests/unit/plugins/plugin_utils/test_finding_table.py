"""Findings as a table and as sentences, and the columns that all tables share."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import (
    Check,
    Finding,
    failed,
    passed,
    skipped,
    warned,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.columns import aligned, widths
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import as_findings, sentence, table

SLOW = failed("spark1 - spark2 rail 0", "bandwidth", "13.0 Gb/s", "less than 85", "replace the cable")


def test_a_check_makes_the_same_findings_as_the_functions() -> None:
    check = Check("spark1", "memory")
    assert check.passed("64 GiB", "free") == passed("spark1", "memory", "64 GiB", "free")
    assert check.warned("9 GiB", "low", "wait") == warned("spark1", "memory", "9 GiB", "low", "wait")
    assert check.failed("1 GiB", "low", "wait") == failed("spark1", "memory", "1 GiB", "low", "wait")
    assert check.skipped("not asked") == skipped("spark1", "memory", "not asked")


def test_a_sentence_has_the_place_the_fault_its_reason_and_the_remedy() -> None:
    assert sentence(SLOW) == (
        "spark1 - spark2 rail 0: bandwidth: 13.0 Gb/s. less than 85. replace the cable."
    )
    assert sentence(passed("a", "gpu", "GB10.")) == "a: gpu: GB10."


def test_findings_from_dictionaries_keep_their_place_unless_another_is_given() -> None:
    assert as_findings([SLOW._asdict()]) == [SLOW]
    assert as_findings([SLOW._asdict()], "chat") == [SLOW._replace(where="chat")]
    row = {"check": "gpu", "status": "pass", "found": "GB10"}
    assert as_findings([row]) == [Finding("", "gpu", "pass", "GB10")]


def test_what_was_skipped_is_counted_and_a_shown_check_has_its_line() -> None:
    findings = [passed("a", "nccl", "22 GB/s"), passed("a", "mtu", "9000"), skipped("a", "rdma", "off")]
    assert table(findings, shown=("nccl",)).splitlines() == [
        "HOST  CHECK  STATUS  FOUND",
        "a     all    PASS    2 pass, 1 skip",
        "a     nccl   PASS    22 GB/s",
    ]


def test_columns() -> None:
    lines = [("HOST", "RANK"), ("spark10", "0"), ("a", "")]
    assert widths(lines) == [7, 4]
    assert aligned(lines) == ["HOST     RANK", "spark10  0", "a"]
