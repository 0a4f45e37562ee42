"""Who listens on a port: what ss of iproute2 6.1 printed, and the real ss with this process's own socket."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import ports

OURS = "4f" * 32
UNIT = "dgx-vllm.service"
USERS = 'users:(("vllm",pid=901,fd=3),("vllm",pid=900,fd=3))'
FREE = {"in_use": False, "pid": None, "process": None, "unit": None, "addresses": [], "error": None}


def listening(runner, *rows: str) -> None:
    runner.on("ss", "-Hltnp", "sport", "=", ":8000", stdout="".join(row + "\n" for row in rows))


def row(address: str, users: str = USERS) -> str:
    """A line as ss pads it."""
    return f"LISTEN 0      128             {address:>17} 0.0.0.0:* {users}     "


def process(write, pid: int, cgroup: str, name: str = "vllm") -> None:
    write(f"/proc/{pid}/comm", f"{name}\n")
    write(f"/proc/{pid}/cgroup", cgroup)


def test_a_free_port(tmp_path, runner):
    listening(runner)
    assert ports.owner(tmp_path, runner, 8000, "", UNIT) == FREE
    assert ports.owner(tmp_path, runner, 0, "", UNIT) == FREE
    assert len(runner.seen) == 1


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
def test_the_unit_behind_a_port(tmp_path, runner, write, cgroup, container, expected):
    listening(runner, row("127.0.0.1:8000"))
    process(write, 900, cgroup)
    assert ports.owner(tmp_path, runner, 8000, container, UNIT) == {
        "in_use": True,
        "pid": 900,
        "process": "vllm",
        "unit": expected,
        "addresses": ["127.0.0.1"],
        "error": None,
    }


def test_ipv6_listener_whose_process_is_hidden(tmp_path, runner):
    listening(runner, "LISTEN 0      128     *:8000  *:*")
    found = ports.owner(tmp_path, runner, 8000, "", UNIT)
    assert (found["in_use"], found["pid"], found["addresses"]) == (True, None, ["::"])


def test_mapped_ipv4_address(tmp_path, runner):
    listening(runner, row("[::ffff:127.0.0.1]:8000"))
    assert ports.owner(tmp_path, runner, 8000, "", UNIT)["addresses"] == ["127.0.0.1"]


def test_several_listeners(tmp_path, runner, write):
    other = 'users:(("nginx",pid=77,fd=6))'
    listening(runner, row("127.0.0.1:8000"), row("192.0.2.1:8000", other), row("[::1]:8000", other))
    process(write, 77, "0::/system.slice/nginx.service\n", "nginx")
    found = ports.owner(tmp_path, runner, 8000, "", UNIT)
    assert (found["pid"], found["process"]) == (77, "nginx")
    assert found["addresses"] == ["127.0.0.1", "192.0.2.1", "::1"]


def test_a_name_with_spaces_quotes_and_brackets(tmp_path, runner, write):
    """ss does not escape them; the name itself is read from /proc."""
    name = 'my "web" (x,y'
    listening(runner, row("127.0.0.1:8000", f'users:(("{name}",pid=12,fd=3),("{name}",pid=11,fd=3))'))
    process(write, 11, "0::/\n", name)
    found = ports.owner(tmp_path, runner, 8000, "", UNIT)
    assert (found["pid"], found["process"]) == (11, name)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("*:49355", ("::", 49355)),
        ("[::]:54597", ("::", 54597)),
        ("*%eth0:49357", ("::", 49357)),
        ("0.0.0.0%eth0:49567", ("0.0.0.0", 49567)),
        ("[fe80::fc:ff:fe00:1]%eth0:52337", ("fe80::fc:ff:fe00:1", 52337)),
        ("[::ffff:127.0.0.1]:57641", ("127.0.0.1", 57641)),
        ("0.0.0.0:*", None),
        ("Local", None),
        ("", None),
    ],
)
def test_columns_of_ss(column, expected):
    assert ports.endpoint(column) == expected


def test_connections(runner):
    lines = (
        "0      0               127.0.0.1:42859          127.0.0.1:33070\n"
        "0      0      [::ffff:127.0.0.1]:22 [::ffff:127.0.0.1]:58708\n"
        "0      0      [fe80::fc:ff:fe00:1]%eth0:22 [fe80::fc:ff:fe00:2]:36744\n"
    )
    runner.on("ss", "-Htn", "state", "established", stdout=lines)
    ends = [("127.0.0.1", 42859), ("127.0.0.1", 22), ("fe80::fc:ff:fe00:1", 22)]
    assert ports.connections(runner) == (ends, "")


def test_without_ss_it_says_so(tmp_path, runner):
    assert ports.owner(tmp_path, runner, 8000, "", UNIT) == {**FREE, "error": "ss is not installed"}
    assert ports.connections(runner) == ([], "ss is not installed")
    runner.on("ss", rc=1, stderr="Cannot open netlink socket: Operation not permitted")
    complaint = "ss failed (Cannot open netlink socket: Operation not permitted)"
    assert ports.owner(tmp_path, runner, 8000, "", UNIT)["error"] == complaint
    assert ports.connections(runner) == ([], complaint)


@pytest.fixture
def real_ss() -> None:
    if not shutil.which("ss"):
        pytest.skip("iproute2 is not installed")


@pytest.mark.usefixtures("real_ss")
@pytest.mark.parametrize(
    ("family", "address", "shown"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1")],
)
def test_a_real_socket_of_this_process(family, address, shown):
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        found = ports.owner(Path("/"), run, port, "", UNIT)
        with socket.create_connection(("127.0.0.1", port)) as client:
            ends, complaint = ports.connections(run)
            assert client.getsockname()[:2] in ends
    assert (found["in_use"], found["pid"], found["addresses"]) == (True, os.getpid(), [shown])
    assert (found["process"], found["error"], complaint) == (
        Path("/proc/self/comm").read_text().strip(),
        None,
        "",
    )


@pytest.mark.usefixtures("real_ss")
def test_a_port_that_nothing_listens_on():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert ports.owner(Path("/"), run, unused.getsockname()[1], "", UNIT) == FREE
