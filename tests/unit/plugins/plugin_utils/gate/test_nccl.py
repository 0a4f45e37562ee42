"""What an all-gather prints, and what that means for its replica."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import (
    ONE_INTERFACE_GBYTES,
    THRESHOLDS,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nccl import (
    gathered,
    nccl_findings,
    parse_nccl,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan

from helpers import all_gather
from helpers.fleets import fleet


def test_nccl_over_rdma() -> None:
    text = """NCCL INFO NET/IB : Using [0]rocep1s0f0:1/RoCE [1]roceP2p1s0f0:1/RoCE [RO]; OOB enp1s0f0np0:198.51.100.1<0>
NCCL INFO Using network IB
# Avg bus bandwidth    : 22.1734
"""
    assert parse_nccl(text) == {
        "transport": "IB",
        "devices": ["rocep1s0f0", "roceP2p1s0f0"],
        "busbw_gbytes": 22.1734,
    }


def test_nccl_that_fell_back_to_tcp() -> None:
    text = (
        "NCCL INFO NET/IB : No device found.\nNCCL INFO NET/Socket : Using [0]enp1s0f0np0:198.51.100.1<0>\n"
    )
    assert parse_nccl(text) == {"transport": "Socket", "devices": [], "busbw_gbytes": None}


def test_nccl_without_an_adapter() -> None:
    """Lines of NCCL 2.28.9 from all_gather.py on a machine that has no RDMA device."""
    text = """vm:618:618 [0] NCCL INFO NET/IB : No device found.
vm:618:618 [0] NCCL INFO NET/IB : Using [RO]; OOB eth0:192.0.2.2<0>
vm:618:618 [0] NCCL INFO NET/Socket : Using [0]eth0:192.0.2.2<0>
vm:618:618 [0] NCCL INFO Using network Socket
# Avg bus bandwidth    : 3.279
"""
    assert parse_nccl(text) == {"transport": "Socket", "devices": [], "busbw_gbytes": 3.279}


def test_what_the_all_gather_showed() -> None:
    planned = plan(fleet([2, 2, 2, 2]))
    good = {
        "rc": 0,
        "stdout": "NET/IB : Using [0]a:1/RoCE [1]b:1/RoCE\n# Avg bus bandwidth    : 22.5",
        "stderr": "",
    }
    results = {
        "r0n0": good,
        "r0n1": {"rc": 0, "stdout": "", "stderr": ""},
        "r1n0": good,
        "r1n1": {"rc": 1, "stdout": "x", "stderr": "RuntimeError: no GPU"},
        "r2n0": {"skipped": True},
        "r3n0": {"msg": "timeout"},
    }
    found = gathered(planned, results)
    assert (found["r0"]["busbw_gbytes"], found["r0"]["devices"]) == (22.5, ["a", "b"])
    assert (found["r1"]["busbw_gbytes"], found["r1"]["error"]) == (
        None,
        "r1n1: RuntimeError: no GPU",
    )
    assert "r2" not in found
    assert found["r3"]["error"] == "r3n0: timeout"


GIB = 2**30
#: Bus bandwidth by gathered size, `all_gather_perf` on two pairs of Sparks, out of place, both interfaces of a port,
#: MTU 9000, NCCL 2.28.9, as their owners published it (July 2026).
PUBLISHED = {
    "pair 1": {GIB // 2: 18.39, GIB: 19.93, 2 * GIB: 21.80, 16 * GIB: 23.74},
    "pair 2": {GIB: 19.73, 2 * GIB: 21.23, 4 * GIB: 22.14},
}


def at(size: int, table: dict[int, float]) -> float:
    """The table's bandwidth at `size`: time grows as a line between two measured sizes."""
    if size in table:
        return table[size]
    low = max((known for known in table if known < size), default=sorted(table)[0])
    high = min((known for known in table if known > low), default=sorted(table)[-1])
    seconds = {known: known / table[known] for known in (low, high)}
    slope = (seconds[high] - seconds[low]) / (high - low)
    return size / (seconds[low] + slope * (size - low))


def judged(busbw: float, nodes: int = 2) -> str:
    """Status of a replica whose NCCL reached `busbw` over all devices."""
    facts = {f"spark{number}": {"rails": [{}, {}]} for number in range(nodes)}
    result = {"transport": "IB", "devices": ["a", "b"], "busbw_gbytes": busbw}
    (finding,) = nccl_findings("chat", facts, result, THRESHOLDS)
    return finding.status


@pytest.mark.parametrize("pair", PUBLISHED)
def test_published_pairs_pass_at_the_size_that_is_measured(pair: str) -> None:
    """The limit belongs to the size of all_gather.py: neither can change without the other."""
    bandwidth = at(all_gather.load().SIZE, PUBLISHED[pair])
    assert judged(bandwidth) == "pass"
    assert judged(0.9 * bandwidth) == "pass", "a tenth below is no fault"


def test_a_smaller_size_would_need_another_limit() -> None:
    """The former size: about 16 GB/s on a healthy pair."""
    assert at(GIB // 4, PUBLISHED["pair 1"]) == pytest.approx(15.9, abs=0.2)
    assert judged(at(GIB // 4, PUBLISHED["pair 1"])) == "fail"


@pytest.mark.parametrize(
    ("busbw", "reason"),
    [
        (ONE_INTERFACE_GBYTES, "no more than one interface alone gives (13.5)"),
        (11.0, "no more than one interface alone gives (13.5)"),
        (3.2, "at most 4 GB/s, as MTU 1500 or TCP give"),
        (15.0, "although each rail is measured separately"),
    ],
)
def test_sick_pairs_fail_with_the_likely_cause(busbw: float, reason: str) -> None:
    facts = {"spark1": {"rails": [{}, {}]}, "spark2": {"rails": [{}, {}]}}
    result = {"transport": "IB", "devices": ["a", "b"], "busbw_gbytes": busbw}
    (finding,) = nccl_findings("chat", facts, result, THRESHOLDS)
    assert finding.status == "fail"
    assert reason in finding.reason


def test_larger_replicas_are_not_held_to_what_a_pair_reaches() -> None:
    """Three nodes: 13.86 GB/s published (all-reduce of 256 MB). Nothing is published for more."""
    assert [judged(13.86, nodes) for nodes in (2, 3, 4, 8)] == ["fail", "warn", "warn", "warn"]
    assert judged(3.0, 4) == "fail"
