"""Who listens on a port: a faked /proc, and this process's own real socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import ports

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
OURS = "4f" * 32
UNIT = "dgx-vllm.service"


def line(address: str, state: str, inode: int) -> str:
    rest = "00000000:00000000 00:00000000 00000000     0        0"
    return f"   0: {address} 00000000:0000 {state} {rest} {inode} 1\n"


def process(tmp_path: Path, write, pid: int, inode: int, cgroup: str, name: str = "vllm") -> None:
    write(f"/proc/{pid}/comm", f"{name}\n")
    write(f"/proc/{pid}/cgroup", cgroup)
    directory = tmp_path / f"proc/{pid}/fd"
    directory.mkdir()
    (directory / "3").symlink_to(f"socket:[{inode}]")


def test_a_free_port(tmp_path, write):
    write("/proc/net/tcp", HEAD + line("0100007F:1F41", "0A", 7) + line("0100007F:1F40", "01", 8))
    assert ports.owner(tmp_path, 8000, "", UNIT)["in_use"] is False
    assert ports.owner(tmp_path, 0, "", UNIT)["in_use"] is False


@pytest.mark.parametrize(
    ("cgroup", "container", "expected"),
    [
        ("0::/system.slice/nginx.service\n", "", "nginx.service"),
        (f"0::/system.slice/docker-{OURS}.scope\n", OURS, UNIT),
        (f"12:pids:/docker/aa/docker/{OURS}\n1:name=systemd:/docker/aa/docker/{OURS}\n", OURS, UNIT),
        (f"0::/system.slice/docker-{OURS}.scope\n", "", f"docker-{OURS}.scope"),
        ("0::/\n", OURS, None),
    ],
)
def test_the_unit_behind_a_port(tmp_path, write, cgroup, container, expected):
    write("/proc/net/tcp", HEAD + line("0100007F:1F40", "0A", 4242))
    process(tmp_path, write, 900, 4242, cgroup)
    assert ports.owner(tmp_path, 8000, container, UNIT) == {
        "in_use": True,
        "pid": 900,
        "process": "vllm",
        "unit": expected,
        "addresses": ["127.0.0.1"],
    }


def test_ipv6_listener_whose_process_is_hidden(tmp_path, write):
    write("/proc/net/tcp6", HEAD + line("00000000000000000000000000000000:1F40", "0A", 5))
    found = ports.owner(tmp_path, 8000, "", UNIT)
    assert (found["in_use"], found["pid"], found["addresses"]) == (True, None, ["::"])


def test_mapped_ipv4_address(tmp_path, write):
    write("/proc/net/tcp6", HEAD + line("0000000000000000FFFF00000100007F:1F40", "0A", 5))
    assert ports.owner(tmp_path, 8000, "", UNIT)["addresses"] == ["127.0.0.1"]


def test_a_real_socket_of_this_process():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        found = ports.owner(Path("/"), server.getsockname()[1], "", UNIT)
    assert (found["in_use"], found["pid"], found["addresses"]) == (True, os.getpid(), ["127.0.0.1"])
