"""Source mode: each release's own CMake functions, run over its own architecture lists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sm121_patch import PatchError, cmake

from helpers import vllm_sources

Tree = Callable[[str], Path]

#: Nothing to edit from here on; before, 12.1 is missing somewhere.
RIGHT_FROM = (0, 20)
needs_cmake = pytest.mark.skipif(
    shutil.which("cmake") is None, reason="cmake is not installed: pip install cmake, or Debian's package"
)


def command(root: Path, verb: str) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = [sys.executable, "-B", "-m", "sm121_patch", "cmake", verb, "--root", root]
    return subprocess.run(words, cwd=vllm_sources.IMAGE, capture_output=True, text=True, check=False)


def rows(root: Path, *targets: str) -> dict[tuple[str, str], dict[str, str]]:
    """(nvcc, target) -> list -> its architectures."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    text = (root / "CMakeLists.txt").read_text()
    for row in cmake.evaluate(text, root / "cmake" / "utils.cmake", targets or cmake.TARGETS):
        found.setdefault((row.nvcc, row.target), {})[row.name] = ";".join(row.archs)
    return found


def number(version: str) -> tuple[int, int]:
    major, minor, _ = version.split(".")
    return int(major), int(minor)


@needs_cmake
@pytest.mark.parametrize("version", vllm_sources.versions("0.14.1", "0.20.2", "0.33.0") + [
    item for item in vllm_sources.versions(*vllm_sources.ALL_VERSIONS)
    if getattr(item, "values", (item,))[0] not in ("0.14.1", "0.20.2", "0.33.0")
])  # fmt: skip
def test_every_list_runs_on_12_1(version: str, tree: Tree) -> None:
    root = tree(version)
    before = (root / "CMakeLists.txt").read_bytes()
    checked = command(root, "check")
    assert checked.returncode == int(number(version) < RIGHT_FROM), checked.stdout + checked.stderr
    applied = command(root, "apply")
    assert applied.returncode == 0, applied.stderr
    after = (root / "CMakeLists.txt").read_bytes()
    assert (after == before) is (number(version) >= RIGHT_FROM)
    for lists in rows(root).values():
        assert {"CUDA_ARCHS", "SCALED_MM_ARCHS", "CUTLASS_MOE_DATA_ARCHS"} <= set(lists)
        for name, archs in lists.items():
            assert archs, f"{name} is empty"
            if name != "CUDA_ARCHS":
                assert re.search(r"12\.0f|12\.1[af]", archs), f"{name} lost its suffix: {archs}"
    assert command(root, "check").returncode == 0
    assert command(root, "apply").returncode == 0 and (root / "CMakeLists.txt").read_bytes() == after


@needs_cmake
def test_0_14_1(tree: Tree) -> None:
    """Unpatched, nvcc 12.9 gets 12.0a for every list, which a GB10 cannot run; patched, all lists have the GB10."""
    root = tree("0.14.1")
    names = ("SCALED_MM_ARCHS", "FP4_ARCHS", "MLA_ARCHS", "CUTLASS_MOE_DATA_ARCHS")
    for target in cmake.TARGETS:
        lists = rows(root, target)["12.9", target]
        assert lists == {"CUDA_ARCHS": "12.0", **dict.fromkeys(names, "12.0a")}
    assert command(root, "apply").returncode == 0
    for nvcc, suffix in (("12.9", "a"), ("13.0", "f")):
        assert rows(root)[nvcc, "12.1"] == {"CUDA_ARCHS": "12.1", **dict.fromkeys(names, f"12.1{suffix}")}
        assert rows(root)[nvcc, "12.0f;12.1f"] == {
            "CUDA_ARCHS": "12.0;12.1",
            **dict.fromkeys(names, f"12.0{suffix};12.1{suffix}"),
        }
    # Kernels that no 12.x can run stay as they were.
    assert (root / "CMakeLists.txt").read_text().count('SCALED_MM_ARCHS "10.0f;11.0f" ') == 3


@needs_cmake
def test_a_partial_edit_is_seen_and_completed(tree: Tree) -> None:
    """12.1 in CUDA_SUPPORTED_ARCHS alone leaves the nvcc 13 lists empty: no FP8 kernels, and no error from CMake."""
    root = tree("0.14.1")
    file = root / "CMakeLists.txt"
    file.write_text(file.read_text().replace('10.0;11.0;12.0")', '10.0;11.0;12.0;12.1")'))
    assert rows(root, "12.1")["13.0", "12.1"]["SCALED_MM_ARCHS"] == ""
    checked = command(root, "check")
    assert checked.returncode == 1 and "EMPTY" in checked.stdout
    assert command(root, "apply").returncode == 0 and command(root, "check").returncode == 0


@needs_cmake
def test_unknown_lists_are_refused_and_nothing_is_written(tree: Tree) -> None:
    root = tree("0.14.1")
    file = root / "CMakeLists.txt"
    good = file.read_text()
    for old, new, said in (
        ("CUTLASS_MOE_DATA_ARCHS", "MOE_DATA", "0 lists CUTLASS_MOE_DATA_ARCHS"),
        ("set(CUDA_SUPPORTED_ARCHS", "set(ARCHS", "sets CUDA_SUPPORTED_ARCHS in 0 known ways"),
        ('FP4_ARCHS "12.0f"', 'FP4_ARCHS "12.9f"', "would still be wrong after the edit for FP4_ARCHS"),
    ):
        changed = good.replace(old, new)
        file.write_text(changed)
        done = command(root, "apply")
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert file.read_text() == changed
    file.unlink()
    assert "cannot be read" in command(root, "check").stderr


def test_cmake_is_needed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("0.33.0")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PatchError, match="cmake is not installed"):
        rows(root)
