"""Run Ansible's commands from a test: on this machine only, without the user's configuration, results as data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ansible.release import __version__

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CORE = tuple(int(part) for part in __version__.split(".")[:2])
"""Version of the ansible-core that runs these tests."""
LOCAL = {
    "ansible_connection": "local",
    "ansible_python_interpreter": sys.executable,
    "ansible_become": False,
}


class Run(NamedTuple):
    """What came back from `ansible-playbook`."""

    rc: int
    out: dict[str, Any]
    err: str

    def results(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(task, host, result) of every task that ran, in order."""
        return [
            (task["task"]["name"], host, result)
            for play in self.out["plays"]
            for task in play["tasks"]
            for host, result in task["hosts"].items()
        ]

    def failure(self, host: str) -> str:
        """The message of the task that failed on `host`; '' when none did."""
        for _, name, result in self.results():
            if name == host and (result.get("failed") or result.get("unreachable")):
                return str(result.get("msg", result.get("censored")))
        return ""


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without any ANSIBLE_ variable, with Ansible's own files under `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **kept,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_LOCAL_TEMP": str(home / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(home / "tmp"),
        "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **more,
    }


def command(
    *words: str, home: Path, cwd: Path = ROOT, timeout: int = 180, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run one command of the Ansible that runs these tests; its exit status is the caller's to judge."""
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=cwd,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def inventory(path: Path, hosts: Mapping[str, Mapping[str, Any]], **common: Any) -> Path:
    """Write an inventory of local hosts in the group dgx_vllm; JSON is YAML."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / "hosts.yml"
    group = {"hosts": {name: dict(values) for name, values in hosts.items()}, "vars": {**LOCAL, **common}}
    file.write_text(json.dumps({"dgx_vllm": group}), encoding="utf-8")
    return file


def play(playbook: str | Path, hosts: Path, *words: str, home: Path, **more: str) -> Run:
    """`ansible-playbook` over the inventory file `hosts`."""
    more.setdefault("ANSIBLE_STDOUT_CALLBACK", "ansible.posix.json")
    done = command(
        "ansible-playbook", "-i", str(hosts), str(playbook), *words, home=home, cwd=ROOT, timeout=180, **more
    )
    start = done.stdout.find("{")
    assert start >= 0, done.stdout + done.stderr
    return Run(done.returncode, json.loads(done.stdout[start:]), done.stderr)
