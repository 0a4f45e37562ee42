"""The machine: its power, its boots, its server as a client sees it, and the container of another program on it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from testlib.node import KEY, UNIT, Node, wait_until
from testlib.runs import environment

SHARED = Path(__file__).resolve().parents[2] / "shared"
SUDO = "sudo-word-for-tests"
MODEL = "dense-bf16"
DELAY = "/etc/testbed/cdi-delay"
SPECIFICATION = "/var/run/cdi/nvidia.yaml"
BOOT = 600.0
"""Seconds that an emulated machine may need on a busy host."""


def place(inventory: Path) -> tuple[str, str]:
    """The machine's name and the address of its forwarded ports."""
    words = "msg={{ [testbed_machine, ansible_host] | join(' ') }}"
    done = subprocess.run(
        ["ansible", "all", "-i", str(inventory), "-m", "ansible.builtin.debug", "-a", words],
        check=True, capture_output=True, text=True, env={**environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    name, address = str(json.loads(done.stdout.partition("=>")[2])["msg"]).split()
    return name, address


class Machine(Node):
    """A node that is a QEMU machine with power of its own."""

    def __init__(self, host: Any, name: str, address: str) -> None:
        super().__init__(host)
        self.name, self.address = name, address
        self.switched_on = time.monotonic()

    def switch_on(self) -> None:
        """Power on; returns when systemd has started everything and ssh answers."""
        self.switched_on = time.monotonic()
        words = ["spark", self.name, "spark1", self.address]
        subprocess.run([str(SHARED / "bin/vm-start"), *words], check=True)
        wait_until(self.answers, "ssh after power on", BOOT)

    def cut(self) -> None:
        """Cut the power."""
        subprocess.run([str(SHARED / "bin/vm-cut"), self.name], check=True)

    def reboot(self) -> None:
        """Shut down in order and switch on again."""
        self.host.run("systemctl poweroff")
        wait_until(lambda: not self.is_on, "power off", BOOT)
        self.switch_on()

    @property
    def is_on(self) -> bool:
        """Whether the machine has power."""
        words = ["bash", "-c", f'. "$0"; vm_runs {self.name}', str(SHARED / "bin/lib.sh")]
        return subprocess.run(words, check=False).returncode == 0

    def booted(self) -> None:
        """Until systemd has started all that it starts at a boot."""
        wait_until(
            lambda: "jobs" in self.host.run("systemctl list-jobs").stdout.lower(), "systemd answers", BOOT
        )
        self.host.run(f"timeout {BOOT:g} systemctl is-system-running --wait")

    def token(self) -> bool:
        """Whether the server answers a completion that comes from outside."""
        body = json.dumps({"model": MODEL, "prompt": "Say something.", "max_tokens": 4}).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.address}:8000/v1/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return bool(json.load(answer)["usage"]["completion_tokens"] >= 1)
        except (OSError, ValueError):
            return False

    def serves(self, limit: float = BOOT) -> float:
        """Until a token is served; the seconds since the machine was switched on."""
        wait_until(self.token, "a served token", limit)
        return time.monotonic() - self.switched_on

    def journal(self) -> str:
        """What the unit has said in this boot."""
        return self.sh(f"journalctl --no-pager -b -o cat -u {UNIT}")

    def loads(self) -> None:
        """Until the server of the current run loads its model."""
        wait_until(lambda: "Starting to load model" in self.run_log(), "the server loads", BOOT)

    def run_log(self) -> str:
        """The log of the unit's current run."""
        run = self.property("InvocationID")
        return self.sh(f"journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID={run}") if run else ""

    @property
    def foreign(self) -> tuple[bool, int, str]:
        """The container of another program: whether it runs, how often it was restarted, since when it runs."""
        text = self.sh(
            "docker inspect -f '{{.State.Running}} {{.RestartCount}} {{.State.StartedAt}}' foreign"
        )
        running, restarts, since = text.split()
        return running == "true", int(restarts), since
