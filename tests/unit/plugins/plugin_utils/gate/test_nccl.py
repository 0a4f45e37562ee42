"""What an all-gather prints, and what that means for its replica."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nccl import gathered, parse_nccl
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan

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
