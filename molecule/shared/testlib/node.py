"""A node: its resources, snapshots that can be compared, and requests to its server."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import testinfra

from testlib.runs import environment

UNIT = "dgx-vllm.service"
WATCH = "dgx-vllm-watch.service"
CONTAINER = "dgx-vllm"
MARKERS = (
    "[vLLM SM_121] Detected GB10 (SM_121) - using torch backend for FP8 linear layers",
    "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers",
)
"""The lines by which a patched vLLM shows what it chose."""

KEY = "api-key-for-tests-only"
REGISTRY_PASSWORD = "registry-word-for-tests"
HUB_TOKEN = "hf_tokenForTestsOnly000000000000000000"
BASIC = base64.b64encode(f"operator:{REGISTRY_PASSWORD}".encode()).decode()
SECRETS = [KEY, REGISTRY_PASSWORD, HUB_TOKEN, BASIC]
"""The testbed's secrets, and the form that Docker keeps a registry login in."""

# /etc/group- and its like are copies that the tools keep of the files before their last change.
_SNAPSHOT = r"""
section() { printf '\n== %s\n' "$1"; }
section packages; dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'
section holds; apt-mark showhold
section etc; cd /etc && find . -xdev -type f ! -path './*-' -exec sha256sum {} + | sort -k 2
section modes; cd /etc && find . -xdev \( -type d -o -type f \) -printf '%p %M %u:%g\n' | sort
section links; cd /etc && find . -xdev -type l -printf '%p -> %l\n' | sort
section data; cd /var/lib && find . -path './dgx-vllm*' -not -path './dgx-vllm/cache/*/*' -printf '%p %M %u:%g\n' | sort
section units; systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'
section users; cut -d: -f1,3 /etc/passwd /etc/group
section folders; ls -A / /opt /srv /usr/local/bin /usr/local/sbin /var/lib /var/cache /home /root 2>/dev/null
section images; docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' 2>/dev/null | sort
section server; systemctl show dgx-vllm.service -p ActiveState,InvocationID,NRestarts
docker inspect -f '{{.Id}}' dgx-vllm 2>/dev/null || true
"""


def wait_until(condition: Callable[[], bool], what: str, limit: float = 180) -> None:
    """Ask once a second until `condition` is true; AssertionError that names `what` after `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit:g} s: {what}"
        time.sleep(1)


Snapshot = dict[str, list[str]]
"""Section name -> its lines."""


class Node:
    """A node. `host` is testinfra's, with its resources (`host.service`, `host.file`, …); `sh` is for the rest."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def sh(self, script: str) -> str:
        """The output of a shell script that must succeed."""
        done = self.host.run(f"sh -euc {shlex.quote(script)}")
        assert done.rc == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout).strip()

    def answers(self) -> bool:
        """Whether a command over ssh succeeds."""
        try:
            return bool(self.host.run("true").rc == 0)
        except RuntimeError:
            return False

    def put(self, path: str, text: str) -> None:
        """Write a file on the node, and the folder that it is in."""
        encoded = base64.b64encode(text.encode()).decode()
        self.sh(f"mkdir -p $(dirname {path}); echo {encoded} | base64 -d > {path}")

    def snapshot(self) -> Snapshot:
        """Everything that a run could change, by section."""
        text = self.host.run(f"bash -c {shlex.quote(_SNAPSHOT)}").stdout
        parts = (part.partition("\n") for part in ("\n" + text).split("\n== ")[1:])
        return {name: body.strip().splitlines() for name, _, body in parts}

    def file(self, path: str) -> Any:
        """The file that a path leads to; testinfra itself looks at the link."""
        return self.host.file(self.host.file(path).linked_to)

    def text(self, path: str) -> str:
        """The text of a file, without the line end at its end."""
        return str(self.host.file(path).content_string).strip()

    def is_running(self, unit: str = UNIT) -> bool:
        """Whether a unit is active."""
        return bool(self.host.service(unit).is_running)

    def listening(self, port: int) -> list[str]:
        """The addresses on which something listens at a TCP port."""
        sockets = (name.removeprefix("tcp://") for name in self.host.socket.get_listening_sockets())
        pairs = (name.rpartition(":") for name in sockets if name.rpartition(":")[2] == str(port))
        return [address for address, _, _ in pairs]

    @property
    def container(self) -> dict[str, Any]:
        """What `docker inspect` says about the server's container."""
        inspected: dict[str, Any] = self.host.docker(CONTAINER).inspect()
        return inspected

    @property
    def image_names(self) -> list[str]:
        """The names of the image that the server's container runs; the container itself knows it by its ID."""
        return self.sh(
            f"docker image inspect -f '{{{{join .RepoTags \"\\n\"}}}}' {self.container['Image']}"
        ).split()

    @property
    def log(self) -> str:
        """The log of the server's container."""
        return self.sh(f"docker logs {CONTAINER} 2>&1")

    @property
    def current(self) -> str:
        """The release in service."""
        return self.release("current")

    def release(self, link: str) -> str:
        """The release that a link of /etc/dgx-vllm leads to: "current" or "previous"."""
        file = self.host.file(f"/etc/dgx-vllm/{link}")
        assert file.is_symlink, f"there is no link /etc/dgx-vllm/{link}"
        return PurePosixPath(file.linked_to).name

    def property(self, name: str) -> str:
        """One property of the unit; "" if systemd does not show it."""
        return str(self.host.service(UNIT).systemd_properties.get(name, ""))

    def wait_for(self, script: str, limit: float = 180) -> None:
        """Until a shell script succeeds; AssertionError after `limit` seconds."""
        wait_until(lambda: self.host.run(f"sh -c {shlex.quote(script)}").rc == 0, script, limit)

    def wait_for_text(self, path: str, text: str, limit: float = 60) -> None:
        """Until a file contains a text (a grep pattern); AssertionError after `limit` seconds."""
        wait_until(lambda: bool(self.host.file(path).contains(text)), f"{path} contains {text}", limit)

    def wait_stopped(self, *units: str, limit: float) -> None:
        """Until none of the units is active; AssertionError after `limit` seconds."""
        wait_until(
            lambda: not any(self.is_running(unit) for unit in units), f"{' and '.join(units)} stopped", limit
        )

    def request(self, path: str, body: dict[str, Any] | None = None, limit: float = 120) -> tuple[int, Any]:
        """Status and JSON of one request, made on the node with its own key, which no command line or journal shows.

        (0, None) if no answer came within `limit` seconds.
        """
        header = r's/^VLLM_API_KEY=\(.*\)/header = "Authorization: Bearer \1"/p'
        words = ["curl", "-s", "-m", f"{limit:g}", "-w", "\n%{http_code}", "-K", "-"]
        words.append(f"http://127.0.0.1:8000{path}")
        if body is not None:
            words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        script = f"sed -n {shlex.quote(header)} /etc/dgx-vllm/current/vllm.env | {shlex.join(words)}"
        text, _, status = self.host.run(script).stdout.rpartition("\n")
        return int(status or 0), json.loads(text) if text.strip() else None

    def completes(self, model: str = "testbed/tiny-moe-fp8") -> bool:
        """Whether the server answers a completion with at least one token."""
        body = {"model": model, "prompt": "Say something.", "max_tokens": 4, "temperature": 0}
        status, answer = self.request("/v1/completions", body)
        return status == 200 and answer["usage"]["completion_tokens"] >= 1


_WATCHER = r"""
import glob, time
seen = set()
with open("/run/testbed-watch.log", "a") as log:
    while True:
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as file:
                    line = file.read().replace(b"\0", b" ").decode(errors="replace").replace("\n", " ")
            except OSError:
                continue
            if line not in seen:
                seen.add(line)
                print(line, file=log, flush=True)
        time.sleep(0.03)
"""


@contextmanager
def watching(node: Node) -> Iterator[Callable[[], list[str]]]:
    """Record every command line on the node, some 20 times a second; gives a function that returns them."""
    node.sh("rm -f /run/testbed-watch.log")
    node.sh(f"systemd-run -q --collect --unit testbed-watch python3 -c {shlex.quote(_WATCHER)}")
    try:
        yield lambda: node.text("/run/testbed-watch.log").splitlines()
    finally:
        node.sh("systemctl stop testbed-watch; rm -f /run/testbed-watch.log")


def connect(inventory: Path, name: str = "spark1", user: str = "") -> Node:
    """The node of an inventory, over ssh as Ansible reaches it: the inventory's templates are evaluated by Ansible.

    `user`: another one than the inventory's, whose sudo may ask for a password.
    """
    address = "ansible_user ~ '@' ~ ansible_host ~ ':' ~ (ansible_port | default(22))"
    names = f"{address}, ansible_ssh_private_key_file, ansible_ssh_common_args"
    expression = "{{ [" + names + "] | to_json }}"
    done = subprocess.run(
        ["ansible", name, "-i", str(inventory), "-m", "ansible.builtin.debug", "-a", f"msg={expression}"],
        check=True, capture_output=True, text=True, env={**environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    message = json.loads(done.stdout.partition("=>")[2])["msg"]
    address, key, arguments = json.loads(message) if isinstance(message, str) else message
    if user:
        address = f"{user}@{address.partition('@')[2]}"
    return Node(
        testinfra.get_host(
            f"ssh://{address}", ssh_identity_file=key, ssh_extra_args=arguments, controlpersist=120, sudo=True
        )
    )


def differences(before: Snapshot, after: Snapshot, without: tuple[str, ...] = ()) -> list[str]:
    """The lines that only one of two snapshots has; sections named in `without` are not compared."""
    lines = []
    for name in before:
        if name not in without:
            lines += [f"{name}: gone: {line}" for line in before[name] if line not in set(after[name])]
            lines += [f"{name}: new: {line}" for line in after[name] if line not in set(before[name])]
    return lines
