"""playbooks/tune.yml on this machine, with a docker and a systemctl that only note what they were asked.

The stages of the role that tune.yml shares with site.yml are stubs here; the scenario lifecycle runs the whole.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import ROOT, command

ROLE = ROOT / "roles/dgx_vllm"
FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
DOCKER = """#!/bin/bash
case "$*" in
  *--plan*) [ ! -e $AT/no-plan ] || { echo 'moe_config: The experts of m are fp8-block.' >&2; exit 2; } ;;
  *'moe_config tune'*)
    echo "tune, server $(cat $AT/active)" >>$AT/steps
    [ ! -e $AT/no-tune ] || { echo 'moe_config: /results/state.json cannot be read: remove it.' >&2; exit 2; }
    results=$(sed 's/.*--volume=\\([^ ]*\\):.results .*/\\1/' <<<"$*")
    for name in FILE timings.json tuned.svg; do echo new >"$results/$name"; done
    echo "/results/FILE" ;;
esac
""".replace("FILE", FILE)
SYSTEMCTL = """#!/bin/bash
case "$*" in
  *show*) printf 'Id=dgx-vllm.service\\nLoadState=loaded\\nActiveState=%s\\n' "$(cat $AT/active)" ;;
  *stop*) echo inactive >$AT/active; echo stop >>$AT/steps ;;
  *start*) echo active >$AT/active; echo start >>$AT/steps ;;
esac
"""


class _Server(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"usage": {"completion_tokens": len(body["prompt"]) * body["max_tokens"]}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Machine:
    """This machine as a node; `steps` is what happened to its server, in order."""

    def __init__(self, place: Path, port: int) -> None:
        self.place, self.port = place, port
        tasks = place / "roles/dgx_vllm/tasks"
        shutil.copytree(ROLE / "tasks", tasks)
        for name in ("defaults", "vars", "templates", "files", "meta"):
            (tasks.parent / name).symlink_to(ROLE / name)
        for name in ("preflight", "common/state", "service/main", "verify", "assert_healthy", "health"):
            self.stub(name)
        (place / "bin").mkdir()
        for name, text in (("docker", DOCKER), ("systemctl", SYSTEMCTL)):
            (place / "bin" / name).write_text(text, encoding="utf-8")
            (place / "bin" / name).chmod(0o755)

    def stub(self, stage: str, *more: dict[str, Any]) -> None:
        """A stage that only notes that it was run; the service's starts the server, health finds it healthy."""
        note = f"echo {stage} >>{self.place}/steps" + (
            f"; echo active >{self.place}/active" if stage == "service/main" else ""
        )
        fact = {"__dgx_vllm_health": {"healthy": True, "msg": ""}}
        tasks: list[dict[str, Any]] = [
            {"ansible.builtin.shell": note},
            {"ansible.builtin.set_fact": fact},
            *more,
        ]
        (self.place / f"roles/dgx_vllm/tasks/{stage}.yml").write_text(json.dumps(tasks), encoding="utf-8")

    def tune(self, *more: str) -> tuple[int, str, list[str]]:
        """(exit status, output on one line, steps)."""
        (self.place / "steps").write_text("", encoding="utf-8")
        (self.place / "active").write_text("active\n", encoding="utf-8")
        state = {
            "docker": {"running": True, "version": "27.5.1"},
            "service": {"active_state": "active", "exists": True},
            "image": {"present": True, "id": "sha256:" + "0f1e2d3c" * 8},
            "model": {"present": True, "commit": "0123abcd"},
            "ledger": {},
            "releases": {},
        }
        given = {
            "ansible_connection": "local", "ansible_become": False, "__dgx_vllm_node": {"state": state},
            "__dgx_vllm_plan": {"hosts": {"spark1": {"world_size": 1}}, "mistakes": []},
            "__dgx_vllm_data_dir": str(self.place / "lib"), "dgx_vllm_model": "org/m", "dgx_vllm_port": self.port,
            "__dgx_vllm_run_lock": str(self.place / "run/run.json"),
            "dgx_vllm_report_dir": str(self.place / "reports"),
            "dgx_vllm_tuned_config_dir": str(self.place / "tuned"),
        }  # fmt: skip
        (self.place / "given.json").write_text(json.dumps(given), encoding="utf-8")
        hosts = {
            "dgx_vllm": {"hosts": {"spark1": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}}}
        }
        (self.place / "hosts.yml").write_text(json.dumps({"all": {"children": hosts}}), encoding="utf-8")
        done = command(
            "ansible-playbook", "-i", str(self.place / "hosts.yml"), "-e", f"@{self.place}/given.json", *more,
            "playbooks/tune.yml", home=self.place, ANSIBLE_ROLES_PATH=str(self.place / "roles"),
            AT=str(self.place), PATH=f"{self.place}/bin:{os.environ['PATH']}",
        )  # fmt: skip
        steps = (self.place / "steps").read_text(encoding="utf-8").splitlines()
        return done.returncode, " ".join((done.stdout + done.stderr).split()), steps


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Machine(tmp_path, server.server_port)
    server.shutdown()


def test_out_of_service_tuned_and_back(machine: Machine) -> None:
    status, said, steps = machine.tune()
    assert status == 0, said
    assert steps == [
        "preflight", "stop", "tune, server inactive", "common/state", "service/main", "verify", "assert_healthy",
    ]  # fmt: skip
    assert (machine.place / "tuned" / FILE).read_text() == "new\n"
    names = {path.name for path in (machine.place / "reports/tuning/spark1").iterdir()}
    assert names == {FILE, "timings.json", "tuned.svg", "speed.json"}
    for batch in (1, 8, 32):
        assert f"batch {batch}: " in said
    assert "5 runs each" in said


def test_back_when_the_tuner_fails(machine: Machine) -> None:
    (machine.place / "no-tune").touch()
    status, said, steps = machine.tune()
    assert status == 2
    assert steps == ["preflight", "stop", "tune, server inactive", "start", "health"]
    assert "spark1 was not tuned: Output: /results/state.json cannot be read: remove it." in said
    assert "The server is back in service and healthy." in said
    assert not (machine.place / "tuned" / FILE).exists()


def test_the_previous_file_comes_back_when_the_server_is_not_healthy_with_the_new_one(
    machine: Machine,
) -> None:
    (machine.place / "tuned").mkdir()
    (machine.place / "tuned" / FILE).write_text("old\n", encoding="utf-8")
    machine.stub("assert_healthy", {"ansible.builtin.fail": {"msg": "The server is not healthy."}})
    status, said, steps = machine.tune()
    assert status == 2 and steps[-3:] == ["assert_healthy", "start", "health"]
    assert "spark1 was not tuned: Output: The server is not healthy." in said
    assert (machine.place / "tuned" / FILE).read_text() == "old\n"


def test_refused_before_anything_is_stopped(machine: Machine) -> None:
    (machine.place / "no-plan").touch()
    status, said, steps = machine.tune()
    assert (status, steps) == (2, ["preflight"]) and "Output: The experts of m are fp8-block." in said
    status, said, steps = machine.tune("-e", "dgx_vllm_tuned_config_dir=")
    assert (status, steps) == (2, ["preflight"])
    assert "spark1 cannot be tuned: dgx_vllm_tuned_config_dir is empty; set it in the inventory" in said


def test_check_mode_says_what_it_would_do(machine: Machine) -> None:
    status, said, steps = machine.tune("--check")
    assert status == 0, said
    assert "stop" not in steps and "Show the tuner's plan" in said
