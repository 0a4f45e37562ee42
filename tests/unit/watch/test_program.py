"""The real process, with the role's own configuration, over a systemctl of a few lines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.watch import configuration
from replica_watch.model import Report
from replica_watch.port import HttpPeers
from replica_watch.system import exchange

from helpers.server_inputs import NODE, settings
from helpers.watch_port import WORD, secret_of

WATCH = Path(__file__).resolve().parents[3] / "roles/dgx_vllm/files/watch"
PATIENCE = 60.0
"""Seconds for what takes one or two on an idle machine; the unit's WatchdogSec= is three times as long."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Program:
    """The watch of spark1, whose one peer is spark2; both are on loopback."""

    def __init__(
        self, place: Path, readers: tuple[str, ...] = (), peer: str = "127.0.0.1", port: int = 0
    ) -> None:
        fleet = {
            host: {
                "dgx_vllm_replica": "chat",
                "dgx_vllm_tensor_parallel_size": 2,
                "dgx_vllm_fabric_prefix": "198.51.100.0/24",
            }
            for host in ("spark1", "spark2")
        }
        given = settings(host="0.0.0.0", watch_limits={"stall": 60}, watch_readers=list(readers))
        config = configuration(given, plan(fleet)["hosts"]["spark1"], NODE)
        assert config["peers"] == {"spark2": "198.51.100.2"}
        self.place, self.port, self.secret = place, port or free_port(), secret_of(place)
        config |= {"address": "127.0.0.1", "peers": {"spark2": peer}, "port": self.port, "interval": 0.1}
        config |= {"state": str(place / "watch.state"), "secret": str(place / "watch.secret")}
        (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
        tool = place / "systemctl"
        tool.write_text(
            f"#!/bin/sh\necho look >>{place}/looks\necho ActiveState=active\necho InvocationID=one\n",
            encoding="utf-8",
        )
        tool.chmod(0o755)
        environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "PYTHONPATH": str(WATCH)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "replica_watch", str(place / "config.json")],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def looks(self) -> int:
        """How often it asked systemd."""
        file = self.place / "looks"
        return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0

    def looks_on(self, number: int = 5) -> None:
        """Fails unless it asks systemd `number` times more in time."""
        before, end = self.looks, time.monotonic() + PATIENCE
        while self.looks < before + number:
            assert time.monotonic() < end, f"{self.looks - before} looks in {PATIENCE:g} s"
            time.sleep(0.05)

    def report(self) -> Report:
        """What it answers spark2, once it runs."""
        peers = HttpPeers("spark2", {"spark1": "127.0.0.1"}, self.port, self.secret, print)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = peers()["spark1"]
            if found is not None and found.phase == "starting":
                return found
            time.sleep(0.1)
        raise AssertionError("the watch does not answer its peer")

    def end(self) -> str:
        """What it wrote to its journal."""
        self.process.terminate()
        return self.process.communicate(timeout=30)[0]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    one = Program(tmp_path)
    yield one
    one.process.kill()
    one.process.wait()


def test_the_program_runs_and_answers(program: Program) -> None:
    found = program.report()
    assert (found.host, found.generation, found.run) == ("spark1", 1, "one")
    output = program.end()
    assert output.startswith("watches dgx-vllm.service as rank 0 with spark2")
    assert "failed" not in output
    assert WORD not in output


def test_m4_without_the_secret_the_program_does_not_answer(program: Program) -> None:
    program.report()
    assert exchange("127.0.0.1", program.port, "GET", "/status", PATIENCE).status == 403
    assert "127.0.0.1 asked without the secret of the replica and got no answer\n" in program.end()


def test_a_reader_of_the_inventory_is_answered(tmp_path: Path) -> None:
    program = Program(tmp_path, readers=("127.0.0.1",))
    try:
        program.report()
        answer = exchange("127.0.0.1", program.port, "GET", "/status", PATIENCE)
        assert Report.from_json(json.loads(answer.text)).host == "spark1"
    finally:
        program.end()


def test_a_journal_that_takes_nothing_ends_nothing(program: Program) -> None:
    program.report()
    assert program.process.stdout is not None
    program.process.stdout.close()
    exchange("127.0.0.1", program.port, "GET", "/status", PATIENCE)
    program.looks_on()
    assert program.process.poll() is None


def test_m4_it_looks_at_systemd_and_answers_under_1000_slow_connections(program: Program) -> None:
    """Each sends a byte a second and comes again when it is closed, from the address of a peer."""
    program.report()
    stop = threading.Event()

    def connect() -> list[socket.socket]:
        found = []
        for _ in range(100):
            try:
                found.append(socket.create_connection(("127.0.0.1", program.port), 5))
            except OSError:
                continue
        return found

    def drip() -> None:
        connections = connect()
        while not stop.wait(1.0):
            for connection in connections:
                try:
                    connection.sendall(b"G")
                except OSError:
                    connection.close()
            open_ones = [one for one in connections if one.fileno() >= 0]
            connections = open_ones or connect()
        for connection in connections:
            connection.close()

    threads = [threading.Thread(target=drip) for _ in range(10)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            program.looks_on()
            assert program.report().host == "spark1"
            time.sleep(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert "a check failed" not in program.end()


def test_m4_it_looks_at_systemd_though_a_peer_drips(tmp_path: Path) -> None:
    """The peer answers a byte a second, without end: the whole exchange has one deadline of two seconds."""
    with socket.create_server(("127.0.0.2", 0)) as server:
        stop = threading.Event()

        def drip(connection: socket.socket) -> None:
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
                while not stop.wait(1.0):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        program = Program(tmp_path, peer="127.0.0.2", port=int(server.getsockname()[1]))
        try:
            program.looks_on(6)
        finally:
            stop.set()
            output = program.end()
    assert "a check failed" not in output
