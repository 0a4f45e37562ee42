"""Interrupted downloads: a lost connection is resumed at once, a lost hub by the next run.

Within one run huggingface_hub resumes in the middle of a file; a later run keeps the files that are complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testlib.node import Node
from testlib.runs import PROJECT, Operator, Run

FOLDER = "/root/breaking-hub"
MODEL = "testbed/large-bf16"
CACHE = "/var/lib/dgx-vllm/models/hub/models--testbed--large-bf16"
ENDPOINT = "http://127.0.0.1:8099"
SMALL, LARGE = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
MIB = 1 << 20


@pytest.fixture
def hub(node: Node) -> Iterator[Callable[[str], None]]:
    """A function that starts a hub on the node, which fails in the given way."""
    sources = [*(PROJECT / "molecule/shared/hub" / name for name in ("hub.py", "model.py")),
               Path(__file__).with_name("breaking_hub.py")]  # fmt: skip
    for source in sources:
        node.put(f"{FOLDER}/{source.name}", source.read_text(encoding="utf-8"))

    def start(how: str) -> None:
        command = f"python3 {FOLDER}/breaking_hub.py {FOLDER}/models 8099 {how}"
        node.sh(f"rm -f {FOLDER}/requests; systemd-run -q --collect --unit breaking-hub {command}")
        node.wait_for(f"curl -sf {ENDPOINT}/api/models/{MODEL}")

    yield start
    node.host.run("systemctl stop breaking-hub")
    node.sh(f"rm -rf {FOLDER} {CACHE}")


def requested(node: Node, name: str) -> list[str]:
    """The ranges of a file that were requested since the hub was started."""
    lines = node.text(f"{FOLDER}/requests").splitlines()
    return [line.split()[1] for line in lines if line.split()[0] == name]


def download(operator: Operator) -> Run:
    return operator.run("site.yml", "--tags", "model", model=MODEL, hf_endpoint=ENDPOINT)


def test_lost_connection(operator: Operator, node: Node, hub: Callable[[str], None]) -> None:
    hub("drop")
    run = download(operator)
    assert run.status == 0, run.message
    first, *_, second = requested(node, LARGE)
    match = re.fullmatch(r"bytes=(\d+)-", second)
    assert first == "all"
    assert match and int(match[1]) >= 10 * MIB
    (snapshot,) = node.host.file(f"{CACHE}/snapshots").listdir()
    assert node.file(f"{CACHE}/snapshots/{snapshot}/{LARGE}").size == 48 * MIB


def test_lost_hub(operator: Operator, node: Node, hub: Callable[[str], None]) -> None:
    invocation = node.property("InvocationID")
    hub("die")
    broken = download(operator)
    assert broken.status == 2
    assert f"Fetching {MODEL} failed with 1" in broken.message

    hub("whole")
    resumed = download(operator)
    assert resumed.status == 0, resumed.message
    assert requested(node, SMALL) == []
    assert requested(node, LARGE) == ["all"]
    assert node.sh(f"find {CACHE} -name '*.incomplete'") == ""
    assert node.property("InvocationID") == invocation
