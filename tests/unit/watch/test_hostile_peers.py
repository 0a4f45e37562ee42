"""Whoever can reach the watch's port, and whatever a peer answers, keeps no watch from its work."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from replica_watch.model import Report
from replica_watch.port import ASKER, CONNECTIONS, MAC, NONCE, HttpPeers, Secret
from replica_watch.system import read_metrics, request

from helpers.watch_port import Port, secret_of

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
def test_an_answer_that_is_not_a_report_is_no_answer(answer: str, tmp_path: Path) -> None:
    """Though it comes with the right MAC."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=once, args=(server, answer, secret_of(tmp_path)), daemon=True).start()
    with server:
        peers = HttpPeers(
            "spark1", {"spark2": "127.0.0.1"}, server.getsockname()[1], secret_of(tmp_path), print, "", 20.0
        )
        assert peers() == {"spark2": None}


def test_a_phase_of_another_version_is_kept() -> None:
    assert Report.from_json({**GOOD, "phase": "resting", "more": 1}).phase == "resting"


def once(server: socket.socket, text: str, secret: Secret) -> None:
    """Answers one question with a text and its MAC."""
    connection, _ = server.accept()
    with connection:
        lines = connection.recv(4096).decode().splitlines()
        given = {line.split(": ")[0].lower(): line.split(": ")[1] for line in lines[1:] if line}
        assert secret.proves(given[MAC], "question", given[ASKER], "spark2", given[NONCE])
        mac = secret.mac("answer", "spark2", given[NONCE], text)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text.encode())}\r\n{MAC}: {mac}\r\n\r\n"
        connection.sendall(head.encode() + text.encode())


def slow(port: int, number: int) -> list[socket.socket]:
    """Connections that have sent one byte of a question."""
    found = []
    for _ in range(number):
        connection = socket.create_connection(("127.0.0.1", port), 20)
        connection.sendall(b"G")
        found.append(connection)
    return found


def test_m4_slow_connections_do_not_pile_up_and_a_peer_is_answered(port: Port) -> None:
    """The slow ones come from the address of a peer; its own question is newer than theirs."""
    connections = []
    for _ in range(20):
        connections += slow(port.number, 50)
        threads = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
        assert len(threads) <= 2 * CONNECTIONS
        assert port.peers()() == {"spark2": port.report}
    for connection in connections:
        connection.close()


def test_m4_a_slow_connection_ends_after_its_time(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replica_watch.port.EXCHANGE", 0.3)
    (connection,) = slow(port.number, 1)
    begun = time.monotonic()
    connection.settimeout(30)
    assert connection.recv(1) == b""
    assert time.monotonic() - begun < 4, "before the five seconds of a read"


def test_a_server_that_drips_has_one_deadline_for_all() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.1):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    threading.Thread(target=drip, daemon=True).start()
    begin = time.monotonic()
    with server:
        assert request("127.0.0.1", server.getsockname()[1], "GET", "/metrics", 1.0) == (0, "")
    end = time.monotonic() + 30
    while any(thread.name == "exchange" for thread in threading.enumerate()):
        assert time.monotonic() < end, "the question waits on, with its thread and its connection"
        time.sleep(0.05)
    stop.set()
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("value", ["1.2.3", "e", "+-", "1e999", "-"])
def test_a_sample_that_is_not_a_number_counts_as_nothing(value: str) -> None:
    lines = f'vllm:num_requests_running{{engine="0"}} {value}\nvllm:generation_tokens_total 5\n'
    assert (read_metrics(lines).running, read_metrics(lines).tokens) == (0.0, 5.0)


def test_m14_a_name_that_is_looked_up_for_long_has_the_same_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ends a look-up; its thread sends nothing when it comes back too late."""
    looked_up, server = threading.Event(), socket.create_server(("127.0.0.1", 0))
    real = socket.getaddrinfo

    def slow_look_up(*given: Any, **more: Any) -> Any:
        looked_up.wait(60)
        return real("127.0.0.1", *given[1:], **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow_look_up)
    begin = time.monotonic()
    with server:
        assert request("spark1.example.com", server.getsockname()[1], "POST", "/", 0.2) == (0, "")
        assert time.monotonic() - begin < 30
        looked_up.set()
        connection, _ = server.accept()
        connection.settimeout(30)
        assert connection.recv(1) == b""
        connection.close()
