"""Whoever can reach the watch's port, and whatever a peer answers, keeps no watch from its work."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from replica_watch.model import Report
from replica_watch.system import CONNECTIONS, HttpPeers, read_metrics, request, serve_status

GOOD = Report("spark2", 3, "up", "ready").as_json()


def text(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


@pytest.mark.parametrize(
    "answer",
    [
        text(generation=math.inf),
        text(generation=10**18),
        text(generation=-1),
        text(generation=True),
        text(generation="3"),
        text(desired="sideways"),
        text(pause=math.inf),
        text(pause=-1),
        text(pause=math.nan),
        text(reason="\x1b]0;owned\x07"),
        text(reason="x" * 5000),
        text(phase="a\nb"),
        text(failures=list(range(5000))),
        text(failures=[None]),
        text(failures=7),
        text(host="spark3"),
        text(host=1),
        "[" * 30_000,
        "[]",
        "null",
        "",
        "{",
    ],
)
def test_an_answer_that_is_not_a_report_is_no_answer(answer: str) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=once, args=(server, answer.encode()), daemon=True).start()
    with server:
        assert HttpPeers({"spark2": "127.0.0.1"}, server.getsockname()[1], 20.0)() == {"spark2": None}


def test_a_phase_of_another_version_is_kept() -> None:
    assert Report.from_json({**GOOD, "phase": "resting", "more": 1}).phase == "resting"


def once(server: socket.socket, body: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture()
def status() -> Iterator[int]:
    server = serve_status("127.0.0.1", 0, lambda: Report("spark2", 3, "up", "ready"))
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


def test_slow_connections_do_not_pile_up(status: int) -> None:
    slow = []
    for _ in range(200):
        connection = socket.create_connection(("127.0.0.1", status), 20)
        connection.sendall(b"G")
        slow.append(connection)
    threads = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
    assert len(threads) <= CONNECTIONS
    for connection in slow:
        connection.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if request("127.0.0.1", status, "GET", "/status", 5.0)[0] == 200:
            return
        time.sleep(0.2)
    pytest.fail("the port did not answer any more")


def test_a_server_that_drips_has_one_deadline_for_all() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.1):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    threading.Thread(target=drip, daemon=True).start()
    begin = time.monotonic()
    with server:
        assert request("127.0.0.1", server.getsockname()[1], "GET", "/metrics", 1.0) == (0, "")
    stop.set()
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("value", ["1.2.3", "e", "+-", "1e999", "-"])
def test_a_sample_that_is_not_a_number_counts_as_nothing(value: str) -> None:
    lines = f'vllm:num_requests_running{{engine="0"}} {value}\nvllm:generation_tokens_total 5\n'
    assert (read_metrics(lines).running, read_metrics(lines).tokens) == (0.0, 5.0)
