"""B5: a start that the machine did not survive is tried once more, and then only by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from helpers.start import FILE, START, Machine


class Unit:
    """The unit's programs in the order in which systemd runs them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.note = START.Note(machine.root / "state/start.json")

    def start(self, release: str = "r1") -> bool:
        """Up to docker run; False if the start was refused."""
        allowed = bool(START.check(self.machine.node, self.note, release))
        if allowed:
            boot = self.machine.node.boot
            died = START.deaths(self.note.load(), release, boot)
            self.note.save(release=release, boot=boot, starting=True, deaths=died)
        else:
            self.end()
        return allowed

    def end(self) -> None:
        START.end(self.note)

    def ready(self) -> None:
        self.note.remove()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def unit(machine: Machine) -> Unit:
    return Unit(machine)


def frozen_twice(unit: Unit) -> None:
    assert unit.start()
    unit.machine.boot("boot-2")
    assert unit.start()
    unit.machine.boot("boot-3")


def test_the_second_death_in_a_row_ends_the_tries(unit: Unit, capsys: pytest.CaptureFixture[str]) -> None:
    frozen_twice(unit)
    assert not unit.start()
    said = capsys.readouterr().out
    assert "the machine died while this release was starting; it is tried once more" in said
    assert "[dgx-vllm] does not start: the machine died 2 times in a row" in said
    unit.machine.boot("boot-4")
    assert not unit.start(), "another boot changes nothing"


def test_by_hand_it_always_tries(unit: Unit) -> None:
    frozen_twice(unit)
    assert not unit.start()
    assert unit.start(), "still booting, but it has refused in this boot: this is somebody"
    unit.machine.boot("boot-4")
    assert not unit.start(), "the machine died of that, too"
    unit.machine.answers["systemctl is-system-running"] = "running\n"
    assert unit.start()
    unit.ready()
    unit.machine.boot("boot-5")
    assert unit.start()


def test_docker_that_starts_the_unit_is_not_somebody(unit: Unit) -> None:
    """R7: Docker wants the unit, and may be restarted by an upgrade of its package."""
    frozen_twice(unit)
    assert not unit.start()
    unit.machine.answers["systemctl show"] = str(int(time.monotonic() * 1e6))
    unit.machine.answers["systemctl is-system-running"] = "running\n"
    assert not unit.start()


@pytest.mark.parametrize("end", ["ready", "end"])
def test_a_start_that_the_machine_survived_is_forgotten(unit: Unit, end: str) -> None:
    for number in range(5):
        unit.machine.boot(f"boot-{number}")
        assert unit.start()
        getattr(unit, end)()
    assert unit.note.load() == {}


def test_a_start_that_fails_in_between_does_not_hide_a_death(unit: Unit) -> None:
    assert unit.start()
    unit.machine.boot("boot-2")
    assert unit.start()
    unit.end()  # Docker could not start it yet; systemd tries again
    assert unit.start()
    unit.machine.boot("boot-3")
    assert not unit.start()


def test_another_release_is_not_blamed(unit: Unit) -> None:
    frozen_twice(unit)
    assert unit.start("r2")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"release": 1}'])
def test_a_damaged_note_is_none(unit: Unit, text: str) -> None:
    unit.machine.put("/state/start.json", text)
    assert unit.start()


def program(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FILE), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def gone(path: Path) -> bool:
    for _ in range(100):
        if not path.exists():
            return True
        time.sleep(0.1)
    return False


def test_a_served_health_removes_the_note_and_nobody_waits_for_it(tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    note = tmp_path / "start.json"
    note.write_text("{}", encoding="utf-8")
    assert program("ready", "--note", str(note), "--port", str(server.server_address[1])).returncode == 0
    assert gone(note)
    server.shutdown()


@pytest.mark.parametrize(
    ("phase", "run", "done"), [("ready", "i1", True), ("starting", "i1", False), ("ready", "i0", False)]
)
def test_a_node_of_a_replica_goes_by_its_watch(tmp_path: Path, phase: str, run: str, done: bool) -> None:
    report = tmp_path / "watch.json"
    report.write_text(json.dumps({"phase": phase, "run": run}), encoding="utf-8")
    assert START.replica_serves(report, "i1") is done
    assert not START.replica_serves(tmp_path / "absent", "i1")


def test_a_mistake_of_the_program_does_not_keep_the_server_down(tmp_path: Path) -> None:
    """ExecCondition takes status 1 for a refusal, and that is what Python ends with after an exception."""
    note = tmp_path / "start.json"
    note.write_text('{"release": "r1", "deaths": "many"}', encoding="utf-8")
    done = program("check", "--note", str(note), "--release", "r1")
    assert (done.returncode, "[dgx-vllm] check: ValueError" in done.stdout) == (0, True)


def test_the_refusal_is_a_skip_for_systemd(tmp_path: Path) -> None:
    """Statuses 1 to 254 of ExecCondition skip the unit; others, and an exception, would fail or pass it."""
    note = tmp_path / "start.json"
    content = {"release": "r1", "boot": "another", "starting": True, "deaths": 1}
    note.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho starting\n", encoding="utf-8")
    (tmp_path / "systemctl").chmod(0o755)
    done = program("check", "--note", str(note), "--release", "r1", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "does not start: the machine died 2 times in a row" in done.stdout
    assert program("end", "--note", str(note)).returncode == 0
    assert json.loads(note.read_text(encoding="utf-8"))["refused"]
