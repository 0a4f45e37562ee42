"""The other small filters of plugins/filter/text.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter import text


def test_every_filter_is_offered() -> None:
    names = set(text.FilterModule().filters())
    assert names >= {
        "explain_text",
        "preflight_sentences",
        "tree_digest",
        "registry_of",
        "without_nvidia",
    }


def test_known_error_is_explained_with_its_line() -> None:
    said = text.explain_text("pulling\nError response from daemon: unauthorized: authentication required\n")
    assert "unauthorized: authentication required" in said
    assert said != "It said: pulling / Error response from daemon: unauthorized: authentication required"


def test_unknown_error_shows_its_last_lines() -> None:
    assert text.explain_text("one\ntwo\n three \nfour\n") == "It said: two / three / four"


def test_preflight_row_becomes_sentences() -> None:
    row = {
        "check": "driver",
        "status": "fail",
        "found": "590.44",
        "reason": "It hangs.",
        "remedy": "Install 580.",
    }
    assert text.preflight_sentences([row], "spark1") == ["spark1: driver: 590.44. It hangs. Install 580."]
    assert text.preflight_sentences([], "spark1") == []


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("registry.example.com/dgx-vllm:0.33.0", "registry.example.com"),
        ("registry.example.com:5000/team/dgx-vllm@sha256:" + "0" * 64, "registry.example.com:5000"),
        ("localhost/dgx-vllm:1", "localhost"),
        ("vllm/vllm-openai:v0.33.0", text.DOCKER_HUB),
        ("ubuntu:24.04", text.DOCKER_HUB),
    ],
)
def test_registry_is_the_one_docker_would_ask(image: str, registry: str) -> None:
    assert text.registry_of(image) == registry


def tree(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM base\n")
    (root / "sub/run.sh").write_text("#!/bin/sh\n")
    (root / "sub/run.sh").chmod(0o755)
    return root


def test_tree_digest_is_that_of_the_content(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    digest = text.tree_digest(str(first), "base:1")
    assert len(digest) == 12
    assert digest == text.tree_digest(str(second), "base:1")
    assert digest == text.tree_digest(str(first / ".." / "a"), "base:1")
    assert digest != text.tree_digest(str(first), "base:2")


def test_tree_digest_sees_names_modes_and_bytes(tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    seen = {text.tree_digest(str(root))}
    (root / "Dockerfile").write_text("FROM other\n")
    seen.add(text.tree_digest(str(root)))
    (root / "sub/run.sh").chmod(0o644)
    seen.add(text.tree_digest(str(root)))
    (root / "sub/run.sh").rename(root / "sub/other.sh")
    seen.add(text.tree_digest(str(root)))
    assert len(seen) == 4


def test_tree_digest_passes_over_caches(tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    before = text.tree_digest(str(root))
    (root / "sub/__pycache__").mkdir()
    (root / "sub/__pycache__/x.pyc").write_bytes(b"x")
    assert text.tree_digest(str(root)) == before


def test_tree_digest_does_not_depend_on_where_the_tree_lies(tmp_path: Path) -> None:
    inside = tree(tmp_path / ".pytest_cache" / "a")
    assert text.tree_digest(str(inside)) == text.tree_digest(str(tree(tmp_path / "b")))


NVIDIA = {"args": [], "path": "nvidia-container-runtime"}


@pytest.mark.parametrize(
    ("daemon", "had", "rest"),
    [
        ({"runtimes": {"nvidia": NVIDIA}}, {"nvidia_runtime": False, "cdi": False}, {}),
        (
            {"runtimes": {"nvidia": NVIDIA}},
            {"nvidia_runtime": True, "cdi": False},
            {"runtimes": {"nvidia": NVIDIA}},
        ),
        (
            {"runtimes": {"nvidia": NVIDIA, "kata": {}}, "features": {"cdi": True}, "mtu": 9000},
            {"nvidia_runtime": False, "cdi": False},
            {"runtimes": {"kata": {}}, "mtu": 9000},
        ),
        (
            {"runtimes": {"nvidia": NVIDIA}, "features": {"cdi": True, "buildkit": True}},
            {"nvidia_runtime": False, "cdi": True},
            {"features": {"cdi": True, "buildkit": True}},
        ),
        ({}, {"nvidia_runtime": False, "cdi": False}, {}),
    ],
)
def test_only_what_was_added_is_taken_out(
    daemon: dict[str, Any], had: dict[str, bool], rest: dict[str, Any]
) -> None:
    given = dict(daemon)
    assert text.without_nvidia(daemon, had) == rest
    assert daemon == given, "the argument is not changed"
