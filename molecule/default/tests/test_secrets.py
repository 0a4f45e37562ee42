"""Everything on a deployed node is searched for secrets, as root: only the files that docs/security.md names hold one.

The environment of the container is left out: `docker inspect` shows it, and Docker and containerd keep it in files
below /var/lib/docker and /run/containerd, all for root and the group docker only.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from testlib.node import SECRETS, UNIT

ALLOWED = re.compile(r"/etc/dgx-vllm/releases/\w+/vllm\.env")
FILES = r"""
find /etc /root /home /tmp /var/tmp /opt /usr/local /var/log /var/lib/dgx-vllm /run/systemd -xdev \
  \( -path /var/lib/dgx-vllm/models -o -path /var/lib/dgx-vllm/cache -o -path /var/log/journal \) -prune -o \
  -type f -size -4096k -exec sh -c 'for f; do printf "\n== %s\n" "$f"; tr -cd "[:print:]\n" <"$f"; done' sh {} + \
  2>/dev/null || true
"""
SHOWN = {
    "processes": "ps axww -o args",
    "environment of the units": f"systemctl show {UNIT} docker.service containerd.service -p Environment,ExecStart",
    "journal": "journalctl --no-pager -b",
    "kernel": "dmesg",
}


def texts(host: Any) -> dict[str, str]:
    """Path -> the printable text of each file; no secret is on the command line, where the journal would keep it."""
    out = str(host.run(f"sh -c {shlex.quote(FILES)}").stdout)
    parts = (part.partition("\n") for part in out.split("\n== ")[1:])
    return {path: body for path, _, body in parts}


def test_only_the_named_files_hold_a_secret(host: Any) -> None:
    found = texts(host)
    assert len(found) > 100, "the search reached no files, so this test proves nothing"
    holding = [path for path, text in found.items() if any(secret in text for secret in SECRETS)]
    assert holding, "the environment of the release holds the key, so this test proves nothing"
    assert [path for path in holding if not ALLOWED.fullmatch(path)] == []
    assert {(file.mode, file.user) for file in map(host.file, holding)} == {(0o600, "root")}


@pytest.mark.parametrize("command", SHOWN.values(), ids=SHOWN.keys())
def test_nothing_shows_a_secret(host: Any, command: str) -> None:
    shown = host.run(command).stdout
    assert [line[:40] for line in shown.splitlines() if any(secret in line for secret in SECRETS)] == []


def test_what_docker_keeps_is_closed(host: Any) -> None:
    """It has the container's environment, and so the key."""
    identity = host.check_output("docker inspect -f '{{.Id}}' dgx-vllm")
    for folder in (f"/var/lib/docker/containers/{identity}", "/var/lib/docker"):
        assert host.file(folder).mode & 0o007 == 0, folder
