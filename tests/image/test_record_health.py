"""From the selectors of each release to the health check: what they record is healthy, and what is bypassed is not."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import KnownLog, read_log
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import parse_inside
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.routing import routing_checks
from sm121_patch import engine, record

from helpers import vllm_sources
from helpers.records import Model, entry, experts, inside, linear
from helpers.selectors import BLOCK, PER_CHANNEL, Tree, choose_linear, choose_moe, patched
from helpers.stub_vllm import Platform, World

every_version = pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the records."""
    for name in ("DGX_VLLM_FP8_LINEAR", "DGX_VLLM_FP8_MOE", "DGX_VLLM_ASSUME_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DGX_VLLM_RECORD_DIR", str(tmp_path / "records"))
    return tmp_path / "records"


class Server:
    """A container: the tree that it serves from, its process, and its log.

    Each choice runs in a module of its own (helpers/stub_vllm.py); a real process has them all in one record.
    """

    def __init__(self, root: Path, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.manifest = (root.parent / "manifest.json").read_text(encoding="utf-8")
        self.folder = folder
        self.capture = capture
        self.record: dict[str, Any] = {"decisions": []}

    def keep(self) -> None:
        """Add what was just recorded to the record of the process."""
        for file in self.folder.glob("record-*.json"):
            content = json.loads(file.read_text(encoding="utf-8"))
            self.record = {**content, "decisions": self.record["decisions"] + content["decisions"]}
            file.unlink()

    def loads(self, *modules: Any) -> None:
        """The worker counts its layers."""
        record._record.clear()
        record.loaded(types.SimpleNamespace(model=Model(*modules)))
        self.keep()

    def judged(self, *words: str) -> dict[str, str]:
        """Check -> status, with the log that the processes have printed."""
        told = {**inside(entry(self.record)), "manifest": {"text": self.manifest}}
        log = KnownLog(read_log(self.capture.readouterr().out), "journal")
        rows = routing_checks(Container(arguments=words), parse_inside(json.dumps(told), ""), log, False)
        return {row.check: row.status for row in rows}


@every_version
def test_fp8_experts_of_a_gb10(
    version: str, tree: Tree, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = patched(tree, version)
    server = Server(root, records, capsys)
    kernel = choose_linear(root, World(Platform((12, 1))), PER_CHANNEL)
    server.keep()
    backend = choose_moe(root, World(Platform((12, 1))))
    server.keep()
    server.loads(linear(kernel), experts(backend))
    rows = server.judged()
    assert (rows["manifest"], rows["record"], rows["markers"]) == ("pass", "pass", "pass")


@every_version
def test_block_fp8(version: str, tree: Tree, records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = patched(tree, version)
    server = Server(root, records, capsys)
    minor = int(version.split(".")[1])
    if minor >= 15:
        choose_linear(root, World(Platform((12, 1))), BLOCK, "FP8_BLOCK" if minor >= 20 else "FP8")
        server.keep()
    choose_moe(root, World(Platform((12, 1))))
    server.keep()
    server.loads(experts("TRITON"))
    rows = server.judged()
    assert (rows["manifest"], rows["record"], rows["markers"]) == ("pass", "pass", "pass")


@every_version
def test_an_explicit_backend(
    version: str, tree: Tree, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if int(version.split(".")[1]) < 22:
        pytest.skip("this release has no --linear-backend")
    root = patched(tree, version)
    server = Server(root, records, capsys)
    kernel = choose_linear(root, World(Platform((12, 1)), linear_backend="cutlass"))
    server.keep()
    backend = choose_moe(root, World(Platform((12, 1))), moe_backend="marlin")
    server.keep()
    server.loads(linear(kernel), experts(backend))
    rows = server.judged("--moe-backend", "marlin", "--linear-backend", "cutlass")
    assert (rows["record"], rows["markers"]) == ("pass", "pass")


@every_version
def test_selectors_that_are_replaced_after_patching(
    version: str, tree: Tree, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest says patched, the functions that run are those of the release: nothing explains what is held."""
    root = patched(tree, version)
    server = Server(root, records, capsys)
    engine.revert(root, root.parent / "manifest.json")
    kernel = choose_linear(root, World(Platform((12, 1))), PER_CHANNEL)
    backend = choose_moe(root, World(Platform((12, 1))))
    server.loads(linear(kernel), experts(backend))
    rows = server.judged()
    assert rows["record"] == "fail", (kernel, backend)
