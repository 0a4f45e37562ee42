"""A download that breaks off half-way goes on where it stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node
from runs import PROJECT, Operator

FOLDER = "/root/breaking-hub"
MODEL = "bed/large-bf16"
ENDPOINT = "http://127.0.0.1:8099"
MIB = 1 << 20


@pytest.fixture(scope="module")
def hub(node: Node) -> Iterator[str]:
    """A hub on the node; the value is the command that starts it, less its limit in bytes."""
    sources = [*(PROJECT / "molecule/shared/hub" / name for name in ("hub.py", "model.py")),
               Path(__file__).with_name("breaking_hub.py")]  # fmt: skip
    for source in sources:
        node.put(f"{FOLDER}/{source.name}", source.read_text(encoding="utf-8"))
    yield f"systemd-run -q --collect --unit breaking-hub python3 {FOLDER}/breaking_hub.py {FOLDER}/models 8099"
    node.host.run("systemctl stop breaking-hub")
    node.sh(f"rm -rf {FOLDER} /var/lib/dgx-vllm/models/hub/models--bed--large*")


def test_download_goes_on_where_it_stopped(operator: Operator, node: Node, hub: str) -> None:
    invocation = node.property("InvocationID")
    node.sh(f"{hub} {30 * MIB}")
    node.wait_for(f"curl -sf {ENDPOINT}/api/models/{MODEL}")
    broken = operator.fail("site.yml", "--tags", "model", model=MODEL, hf_endpoint=ENDPOINT)
    assert f"Fetching {MODEL} failed with 1" in broken.message
    assert "goes on where it stopped" in broken.message

    node.sh(f"{hub} 0")
    node.wait_for(f"curl -sf {ENDPOINT}/api/models/{MODEL}")
    operator.succeed("site.yml", "--tags", "model", model=MODEL, hf_endpoint=ENDPOINT)
    ranges = node.sh(f"cat {FOLDER}/ranges").splitlines()
    assert ranges[0] == "all"
    match = re.fullmatch(r"bytes=(\d+)-", ranges[-1])
    assert match and int(match[1]) >= 10 * MIB, f"the second run asked for {ranges}"
    assert node.property("InvocationID") == invocation
