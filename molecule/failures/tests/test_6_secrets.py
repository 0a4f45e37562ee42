"""No secret is to be found by somebody without root, after everything that the tests before did to this node.

That no run showed one at -vvv, and no command line on the node while it was deployed, is asserted where they
ran. A container's environment can be read with `docker inspect`, by root and the group docker alone: it is left out.
"""

from __future__ import annotations

import pytest
from node import UNIT, Node
from runs import Operator

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
    "/etc/dgx-vllm": "755 root:root",
    "/etc/dgx-vllm/docker": "700 root:root",
    "/etc/dgx-vllm/docker/config.json": "600 root:root",
    "/etc/dgx-vllm/current/vllm.env": "600 root:root",
    "/etc/dgx-vllm/current/dgx-vllm.service": "644 root:root",
    f"/etc/systemd/system/{UNIT}": "644 root:root",
    "/var/lib/dgx-vllm/state/ledger.json": "644 root:root",
    "/var/lib/dgx-vllm/state/health.json": "644 root:root",
}


@pytest.mark.parametrize("command", PLACES.values(), ids=PLACES.keys())
def test_no_secret_in(operator: Operator, node: Node, command: str) -> None:
    text = node.host.run(command).stdout
    assert text.strip(), "there was nothing to look at"
    assert not operator.leaks(text.splitlines())


@pytest.mark.parametrize(("path", "mode"), MODES.items(), ids=MODES.keys())
def test_mode_of(node: Node, path: str, mode: str) -> None:
    assert node.sh(f"stat -Lc '%a %U:%G' {path}") == mode


def test_the_registry_login_does_not_stay(node: Node) -> None:
    assert "registry.testbed.test" not in node.sh("cat /etc/dgx-vllm/docker/config.json")


def test_every_environment_file_is_roots_alone(node: Node) -> None:
    modes = node.sh("stat -c '%a %U:%G' /etc/dgx-vllm/releases/*/vllm.env").splitlines()
    assert set(modes) == {"600 root:root"}
