"""What surrounds the trial on a real GPU, without one: the bundle in parts, the report, the stand-in of the toolkit."""

from __future__ import annotations

import importlib.util
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NODE = Path(__file__).resolve().parent / "node"


def load(path: str) -> ModuleType:
    """A script of the folder as a module."""
    name = Path(path).stem.replace("-", "_")
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(NODE / path)))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts: Any = load("parts.py")
write_report: Any = load("write_report.py")
about: Any = load("about.py")
runtime: Any = load("toolkit/nvidia-container-runtime")
ctk: Any = load("toolkit/nvidia-ctk")

CONTENT = {"root": bytes(range(256)) * 40, "wheels": b"w" * 3000}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Two small files, described and in parts of 4000 bytes."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    (folder / ".versions").write_text("Docker version 28\n")
    parts.describe(folder, list(CONTENT))
    parts.split(folder, tmp_path / "parts", 4000)
    return folder


def folders(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "parts").iterdir())


def test_parts_give_the_bundle_again_in_any_order(bundle: Path, tmp_path: Path) -> None:
    into = tmp_path / "joined"
    numbers = folders(tmp_path)
    assert [len(list(folder.iterdir())) for folder in numbers] == [2, 2, 2, 2]
    for folder in reversed(numbers):
        missing = parts.take(folder, into)
    assert missing == []
    assert {name: (into / name).read_bytes() for name in CONTENT} == CONTENT
    assert (into / "contents.json").read_text() == (bundle / "contents.json").read_text()
    assert not list(into.glob("*.0*")), "the parts are gone once their file is whole"


def test_a_file_is_whole_as_soon_as_its_own_parts_are_there(bundle: Path, tmp_path: Path) -> None:
    into = tmp_path / "joined"
    for folder in folders(tmp_path)[:3]:
        missing = parts.take(folder, into)
    assert missing == ["wheels.000"]
    assert (into / "root").read_bytes() == CONTENT["root"]


def test_a_part_that_comes_twice_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    into = tmp_path / "joined"
    first = folders(tmp_path)[0]
    assert parts.take(first, into) == parts.take(first, into)


def test_a_damaged_part_is_refused_and_accepted_when_it_comes_again(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "joined"
    first = folders(tmp_path)[0]
    (first / "root.000").write_bytes(b"x" * 4000)
    assert parts.main(["take", str(first), str(into)]) == 2
    assert "root.000 is damaged (its sha256 is another one): send it again." in capsys.readouterr().err
    parts.split(bundle, tmp_path / "parts", 4000)
    assert parts.main(["take", str(first), str(into)]) == 0


def test_parts_of_another_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    into = tmp_path / "joined"
    parts.take(folders(tmp_path)[0], into)
    (bundle / "wheels").write_bytes(b"other")
    parts.describe(bundle, list(CONTENT))
    parts.split(bundle, tmp_path / "other", 4000)
    with pytest.raises(parts.PartsError, match="belongs to another bundle"):
        parts.take(tmp_path / "other" / "00", into)


def test_with_all_the_status_says_whether_something_is_missing(bundle: Path, tmp_path: Path) -> None:
    status = [parts.main(["take", str(folder), str(tmp_path / "j"), "--all"]) for folder in folders(tmp_path)]
    assert status == [1, 1, 1, 0]


STEPS = {
    "role.first_run": {
        "title": "site.yml, first run", "status": "passed", "seconds": 150.2, "lines": ["[vLLM SM_121] a line"],
        "facts": {"playbook_s": 149.9, "changed": 22, "checks": {"unit": "pass", "markers": "pass", "moe": "warn"}},
    },
    "role.auto": {"title": "Both routes | auto", "status": "failed", "seconds": 9, "error": "no\nway"},
    "tune.tune": {"title": "tune.yml", "status": "left"},
}  # fmt: skip


def test_the_report_says_what_passed_failed_and_was_not_run(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(STEPS))
    (tmp_path / "machine.json").write_text(json.dumps(about.about(tmp_path)))
    (tmp_path / "toolkit").write_text("a stand-in\n")
    assert write_report.main(["", str(tmp_path)]) == 1
    page = (tmp_path / "report.md").read_text()
    assert "**1 steps passed, 1 failed, 1 not run.**" in page
    assert "- container toolkit: a stand-in" in page
    first = (
        "| site.yml, first run | yes | 150.2 | playbook s: 149.9; changed: 22; 2 checks passed (moe: warn) |"
    )
    assert first in page
    assert "| Both routes \\| auto | **no** | 9 | no way |" in page
    assert "| tune.yml | not run |  |  |" in page
    assert "```text\n[vLLM SM_121] a line\n```" in page


def test_the_report_of_a_trial_without_a_failure_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"role.first_run": STEPS["role.first_run"]}))
    assert write_report.main(["", str(tmp_path)]) == 0


def container(**more: Any) -> dict[str, Any]:
    """What Docker hands to a runtime."""
    return {
        "process": {"env": ["PATH=/bin"]},
        "linux": {"resources": {"devices": [{"allow": False}]}},
        **more,
    }


def test_the_stand_in_runtime_acts_on_gpus_only() -> None:
    asked = container(hooks={"prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook"}]})
    assert runtime.wants(asked) and asked["hooks"]["prestart"] == []
    assert not runtime.wants(container())
    assert not runtime.wants(container(process={"env": ["NVIDIA_VISIBLE_DEVICES=void"]}))
    assert runtime.wants(container(process={"env": ["NVIDIA_VISIBLE_DEVICES=all"]}))


def test_the_stand_in_runtime_adds_device_permission_and_driver() -> None:
    spec = container()
    runtime.inject(spec, {"deviceNodes": [{"path": "/dev/null"}]})
    runtime.inject(spec, ctk.specification(["/dev/null"])["containerEdits"])
    assert spec["linux"]["devices"][0] | {"fileMode": 0} == {
        "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0, "uid": 0, "gid": 0,
    }  # fmt: skip
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"} in spec["linux"][
        "resources"
    ]["devices"]
    assert [mount["destination"] for mount in spec["mounts"]] == ["/usr/local/nvidia", "/usr/bin/nvidia-smi"]
    assert "LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in spec["process"]["env"]


def test_every_wheel_and_the_operators_packages_are_pinned_by_hash() -> None:
    for name in ("wheels.txt", "operator.txt"):
        lines = [line for line in (NODE / name).read_text().splitlines() if not line.startswith("#")]
        assert lines and all("==" in line and "--hash=sha256:" in line for line in lines)
