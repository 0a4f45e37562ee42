"""Run the project's playbooks as an operator would, and keep their output.

Every run is at -vvv, and no run may show a secret: `Operator.run` fails the test when its output holds one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[3]
NODE = "spark1"
_BLOCK = re.compile(rf"^(?:fatal|failed): \[{NODE}[^\]]*\].*? => *\n((?:[ ].*\n|\n)+)", re.MULTILINE)
_ERROR = re.compile(r"^\[ERROR\]: (.*?)^Origin: ", re.MULTILINE | re.DOTALL)
_RECAP = re.compile(rf"^{NODE} +: (.*)$", re.MULTILINE)


def environment() -> dict[str, str]:
    """What Ansible runs in: the checkout's settings, without those that molecule adds and without colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **kept,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
        "ANSIBLE_ROLES_PATH": str(PROJECT / "roles"),
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "300",
    }


def one_line(text: str) -> str:
    """`text` with every sequence of white space as one blank."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Run:
    """One `ansible-playbook` run."""

    status: int
    output: str
    seconds: float

    @property
    def message(self) -> str:
        """The message of the last failed task, on one line; "" if none failed."""
        blocks = _BLOCK.findall(self.output)
        result = yaml.safe_load(textwrap.dedent(blocks[-1])) if blocks else {}
        text = result.get("msg") if isinstance(result, dict) else None
        if text is None or (isinstance(result, dict) and "censored" in result):
            errors = _ERROR.findall(self.output)
            text = errors[-1] if errors else ""
        return one_line(str(text))

    @property
    def counts(self) -> dict[str, int]:
        """The node's line of the recap: ok, changed, failed, …"""
        lines = _RECAP.findall(self.output)
        return (
            {name: int(number) for name, number in (pair.split("=") for pair in lines[-1].split())}
            if lines
            else {}
        )

    @property
    def changed(self) -> list[str]:
        """The tasks that changed the node."""
        task, tasks = "", []
        for line in self.output.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line.partition("[")[2].rpartition("]")[0]
            elif line.startswith(f"changed: [{NODE}"):
                tasks.append(task)
        return tasks

    @property
    def tail(self) -> str:
        """The end of the output, for a failed test's report."""
        return self.output[-6000:]


@dataclass
class Operator:
    """An operator with a checkout and an inventory.

    `secrets` must never be shown; `folder` keeps reports; `options` are words of every run's command.
    """

    inventory: Path
    folder: Path
    secrets: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    @property
    def habits(self) -> dict[str, Any]:
        """Variables of every run: reports in a folder of the tests, and more frequent checks while a server starts."""
        return {"dgx_vllm_report_dir": str(self.folder / "reports"), "dgx_vllm_health_interval": 2}

    def leaks(self, lines: list[str]) -> list[str]:
        """The lines that hold a secret, with the secret masked, so that reporting them is not a leak."""
        leaking = [line for line in lines if any(secret in line for secret in self.secrets)]
        for secret in self.secrets:
            leaking = [line.replace(secret, "<secret>")[:300] for line in leaking]
        return leaking

    def start(
        self,
        playbook: str = "site.yml",
        *arguments: str,
        given: dict[str, str] | None = None,
        **variables: Any,
    ) -> Started:
        """Start a run; variables are dgx_vllm_NAME=value as JSON from a 0600 file, `given` as -e NAME=VALUE words."""
        self.secrets += [str(value) for name, value in variables.items() if name in SECRET and value]
        named = {f"dgx_vllm_{name}": value for name, value in variables.items()}
        file = self.folder / f"variables-{time.monotonic_ns()}.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({**self.habits, **named}), encoding="utf-8")
        words = [word for name, value in (given or {}).items() for word in ("-e", f"{name}={value}")]
        command = [
            "ansible-playbook",
            "-vvv",
            "-i",
            str(self.inventory),
            "-e",
            f"@{file}",
            *words,
            *self.options,
            *arguments,
        ]
        output = self.folder / f"{file.stem}.log"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [*command, playbook], cwd=PROJECT, env=environment(), stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        return Started(self, process, output, time.monotonic())

    def run(
        self,
        playbook: str = "site.yml",
        *arguments: str,
        given: dict[str, str] | None = None,
        **variables: Any,
    ) -> Run:
        """Start a run and wait for its end."""
        return self.start(playbook, *arguments, given=given, **variables).wait()

    def succeed(self, playbook: str = "site.yml", *arguments: str, **variables: Any) -> Run:
        """A run that must succeed."""
        run = self.run(playbook, *arguments, **variables)
        assert run.status == 0, f"{playbook} failed: {run.message}\n{run.tail}"
        return run

    def fail(
        self,
        playbook: str = "site.yml",
        *arguments: str,
        given: dict[str, str] | None = None,
        **variables: Any,
    ) -> Run:
        """A run that must fail, in a task that gives the reason."""
        run = self.run(playbook, *arguments, given=given, **variables)
        assert run.status == 2, f"{playbook} ended with {run.status}\n{run.tail}"
        assert run.message, f"{playbook} failed without a message\n{run.tail}"
        return run


@dataclass
class Started:
    """A running playbook."""

    operator: Operator
    process: subprocess.Popen[bytes]
    file: Path
    begun: float

    def wait(self, limit: float = 1800) -> Run:
        """Wait for the end, at most `limit` seconds; no secret may be in the output."""
        try:
            status = self.process.wait(limit)
        finally:
            self.process.kill()
        run = Run(
            status, self.file.read_text(encoding="utf-8", errors="replace"), time.monotonic() - self.begun
        )
        leaks = self.operator.leaks(run.output.splitlines())
        assert not leaks, f"{len(leaks)} lines of the output show a secret, the first: {leaks[0]}"
        return run


SECRET = ("api_key", "hf_token", "registry_password")
"""Role variables (without prefix) whose values are secrets."""
