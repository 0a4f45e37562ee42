"""Nobody without root can find a secret, after everything that the previous tests did to this node.

That no run showed one at -vvv, and no command line on the node during the deployment, is asserted where they ran.
A container's environment can be read with `docker inspect`, but only by root and the group docker: it is left out.
"""

from __future__ import annotations

import pytest

from testlib.node import UNIT, Node
from testlib.runs import Operator

PLACES = {
    "unit": f"systemctl cat {UNIT}; systemctl show {UNIT}",
    "processes": "ps axww -o args",
    "journal": "journalctl --no-pager -b",
    "container's log": "docker logs dgx-vllm 2>&1",
    "container's arguments": "docker inspect -f '{{json .Path}} {{json .Args}} {{json .Config.Cmd}}"
    " {{json .Config.Entrypoint}} {{json .Config.Labels}} {{json .HostConfig}}' dgx-vllm",
    "readable files": "find /etc/dgx-vllm /var/lib/dgx-vllm /etc/docker /etc/systemd /etc/apt /tmp /var/tmp -xdev"
    " -type f -perm /044 -exec cat {} + | tr -cd '[:print:]\\n'",
}
MODES = {
    "/etc/dgx-vllm": 0o755,
    "/etc/dgx-vllm/docker": 0o700,
    "/etc/dgx-vllm/docker/config.json": 0o600,
    "/etc/dgx-vllm/current/vllm.env": 0o600,
    "/etc/dgx-vllm/current/dgx-vllm.service": 0o644,
    f"/etc/systemd/system/{UNIT}": 0o644,
    "/var/lib/dgx-vllm/state/ledger.json": 0o644,
    "/var/lib/dgx-vllm/state/health.json": 0o644,
}


@pytest.mark.parametrize("command", PLACES.values(), ids=PLACES.keys())
def test_no_secret_in(operator: Operator, node: Node, command: str) -> None:
    text = node.host.run(command).stdout
    assert text.strip(), "the command printed nothing, so this test proves nothing"
    assert not operator.leaks(text.splitlines())


@pytest.mark.parametrize(("path", "mode"), MODES.items(), ids=MODES.keys())
def test_mode_of(node: Node, path: str, mode: int) -> None:
    file = node.file(path)
    assert (file.mode, file.user, file.group) == (mode, "root", "root")


def test_the_registry_login_does_not_stay(node: Node) -> None:
    assert "registry.testbed.test" not in node.text("/etc/dgx-vllm/docker/config.json")


def test_every_environment_file_is_readable_by_root_only(node: Node) -> None:
    releases = node.host.file("/etc/dgx-vllm/releases").listdir()
    files = [node.host.file(f"/etc/dgx-vllm/releases/{release}/vllm.env") for release in releases]
    assert {(file.mode, file.user, file.group) for file in files} == {(0o600, "root", "root")}
