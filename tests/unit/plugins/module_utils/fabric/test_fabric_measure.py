"""What the tools print, in the words of the tools."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.measure import (
    parse_nccl,
    parse_ping,
    parse_write_bw,
)

GOOD_PING = """PING 198.51.100.2 (198.51.100.2) from 198.51.100.1 : 8972(9000) bytes of data.
8980 bytes from 198.51.100.2: icmp_seq=1 ttl=64 time=0.412 ms

--- 198.51.100.2 ping statistics ---
3 packets transmitted, 3 received, 0% packet loss, time 2042ms
rtt min/avg/max/mdev = 0.212/0.333/0.412/0.087 ms
"""
LOCAL = """PING 198.51.100.2 (198.51.100.2) 8972(9000) bytes of data.
ping: local error: message too long, mtu=1500
--- 198.51.100.2 ping statistics ---
3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2051ms
"""
ON_THE_WAY = """From 198.51.100.254 icmp_seq=1 Frag needed and DF set (mtu = 4000)
3 packets transmitted, 0 received, +1 errors, 100% packet loss, time 2051ms
"""
UNREACHABLE = """From 198.51.100.1 icmp_seq=1 Destination Host Unreachable
3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2030ms
pipe 3
"""
HEAD = " #bytes     #iterations    BW peak[{0}]    BW average[{0}]   MsgRate[Mpps]\n"
GOOD_BW = """---------------------------------------------------------------------------------------
                    RDMA_Write BW Test
 Dual-port       : OFF\t\tDevice         : rocep1s0f0
 Mtu             : 4096[B]
 GID index       : 3
---------------------------------------------------------------------------------------
 #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
 65536      5000             97.33              97.28  \t\t   0.185546
---------------------------------------------------------------------------------------
"""


def test_a_good_ping() -> None:
    assert parse_ping(GOOD_PING) == {
        "sent": 3, "received": 3, "ok": True, "loss_percent": 0.0, "rtt_ms": 0.333, "mtu": None, "limited_by": "",
        "unreachable": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "limited_by", "mtu", "unreachable"),
    [
        (LOCAL, "local", 1500, False),
        (
            "ping: local error: Message too long, mtu: 1500\n1 packets transmitted, 0 received",
            "local",
            1500,
            False,
        ),
        (ON_THE_WAY, "path", 4000, False),
        (UNREACHABLE, "", None, True),
        ("ping: connect: Network is unreachable", "", None, True),
        ("", "", None, False),
    ],
)
def test_pings_that_fail(text: str, limited_by: str, mtu: int | None, unreachable: bool) -> None:
    found = parse_ping(text)
    assert (found["ok"], found["loss_percent"]) == (False, 100.0)
    assert (found["limited_by"], found["mtu"], found["unreachable"]) == (limited_by, mtu, unreachable)


def test_a_lost_packet_is_no_success() -> None:
    found = parse_ping("3 packets transmitted, 2 received, 33.3333% packet loss, time 2042ms")
    assert (found["ok"], found["loss_percent"]) == (False, 33.3)


def test_bandwidth() -> None:
    assert parse_write_bw(GOOD_BW) == {
        "gbits": 97.28, "peak_gbits": 97.33, "bytes": 65536, "iterations": 5000, "error": "",
    }  # fmt: skip


def test_bandwidth_of_soft_roce() -> None:
    text = HEAD.format("Gb/sec") + " 65536      200   0.19   0.18   0.000343"
    assert parse_write_bw(text)["gbits"] == 0.18


def test_the_unit_without_report_gbits() -> None:
    text = HEAD.format("MiB/sec") + " 65536      5000   11600.00   11596.68   0.18"
    assert parse_write_bw(text)["gbits"] == 97.28


def test_the_largest_message_of_all_sizes_counts() -> None:
    head = HEAD.format("Gb/sec")
    assert (
        parse_write_bw(head + " 2  5000  0.05  0.05  3.1\n 8388608  5000  97.9  97.8  0.001\n")["gbits"]
        == 97.8
    )


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (
            "Couldn't connect to 198.51.100.2:18515\nUnable to open file descriptor for socket connection",
            "no connection",
        ),
        (" Completion with error at client\n Failed status 12: wr_id 0 syndrom 0x81", "never acknowledged"),
        ("Couldn't allocate MR\nfailed to create mr", "memory could not be registered"),
        (" IB device rocep1s0f0 not found", "no such RDMA device"),
        ("Failed to modify QP 17 to RTR", "with its GID"),
        ("something new", "output of ib_write_bw: something new"),
        ("", "printed nothing"),
        (GOOD_BW.replace("97.28", "0.00"), "output of ib_write_bw:"),
    ],
)
def test_bandwidth_that_could_not_be_measured(text: str, meaning: str) -> None:
    found = parse_write_bw(text)
    assert found["gbits"] is None
    assert meaning in found["error"]


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
