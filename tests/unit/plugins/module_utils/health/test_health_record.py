"""Records are data of another program: what is read of them, whose they are, and what happens to nonsense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health import inside as inside_module
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.record import Records, read_records

from helpers.records import entry, fp8_moe, someone_elses_pid


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """The record of a process that serves FP8 experts."""
    return fp8_moe(tmp_path).record()


def test_a_record_is_read(made: dict[str, Any]) -> None:
    (record,) = read_records([entry(made)]).live
    assert record.pid == os.getpid()
    assert [(row.layer, row.why, row.number) for row in record.decisions] == [
        ("linear", "routed", 1),
        ("moe", "routed", 1),
    ]
    assert record.census is not None
    assert [(row.part, row.kind, row.experts) for row in record.census] == [
        ("target", "linear", 0),
        ("target", "moe", 512),
    ]
    assert record.moe_configs[0].found.endswith(record.moe_configs[0].file)
    assert record.switches == {"linear": "torch", "moe": "triton"}


@pytest.mark.parametrize(
    "given",
    [{"born": None}, {"born": 1}, {"pid": someone_elses_pid()}],
    ids=["the process is gone", "the number belongs to a later process", "the name is another one's"],
)
def test_a_record_counts_only_for_the_process_that_wrote_it(given: Any, made: dict[str, Any]) -> None:
    """One that is left over from an earlier start of the container, or of a worker that died, says nothing of now."""
    records = read_records([entry(made, **given)])
    assert not records.live
    assert len(records.gone) == 1


def test_a_process_whose_start_is_unknown_counts_by_its_number(made: dict[str, Any]) -> None:
    assert read_records([entry({**made, "born": None}, born=5)]).live


def changed(made: dict[str, Any], **given: Any) -> str:
    return json.dumps({**made, **given})


NONSENSE = [
    lambda made: "", lambda made: "{", lambda made: "[]", lambda made: "null", lambda made: "[" * 100_000,
    lambda made: '{"version": "1"}', lambda made: changed(made, version=True), lambda made: changed(made, pid="7"),
    lambda made: changed(made, decisions={}), lambda made: changed(made, decisions=[1]),
    lambda made: changed(made, decisions=[{}] * 2000),
    lambda made: changed(made, decisions=[{"layer": "attention", "why": "", "chosen": "", "detail": "", "count": 1}]),
    lambda made: changed(made, decisions=[{"layer": "moe", "why": 1, "chosen": "", "detail": "", "count": 1}]),
    lambda made: changed(made, moe_configs=[{"file": None, "found": None}]),
    lambda made: changed(made, census="none"), lambda made: changed(made, census=[{"kind": "moe"}]),
    lambda made: changed(made, census=[{**made["census"][0], "holds": "x"}]),
    lambda made: changed(made, census=[{**made["census"][1], "experts": "many"}]),
    lambda made: changed(made, errors=None),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_nonsense_is_no_record(number: int, made: dict[str, Any]) -> None:
    records = read_records([entry(made, text=NONSENSE[number](made))])
    assert (records.live, records.gone, len(records.unreadable)) == ((), (), 1)
    assert not records.newer


@pytest.mark.parametrize("entries", [None, {}, 7, ["x"], [None], [[]]])
def test_a_list_that_is_none(entries: Any) -> None:
    assert read_records(entries) == Records()


def test_nonsense_beside_a_record_does_no_harm(made: dict[str, Any]) -> None:
    records = read_records([entry(made, text="{"), entry(made)])
    assert len(records.live) == 1


def test_a_format_of_the_future_is_unknown(made: dict[str, Any]) -> None:
    records = read_records([entry({**made, "version": 2})])
    assert records.newer
    assert not records.live
    assert not read_records([entry({**made, "version": 2}, born=None)]).newer


def test_long_texts_are_cut(made: dict[str, Any]) -> None:
    row = {"layer": "moe", "why": "x" * 10_000, "chosen": "", "detail": "", "count": 1}
    (record,) = read_records([entry({**made, "decisions": [row], "errors": ["y" * 10_000]})]).live
    assert len(record.decisions[0].why) == len(record.errors[0]) == 300


def test_an_unknown_census_kind_is_kept_and_judges_nothing(made: dict[str, Any]) -> None:
    made["census"][0]["kind"] = "attention"
    assert len(read_records([entry(made)]).census) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "records-in-the-container"
    place.mkdir()
    return place


def read_inside(folder: Path, **environment: str) -> dict[str, Any]:
    """What the file prints when it is run as docker exec runs it."""
    source = Path(inside_module.__file__).read_text(encoding="utf-8")
    variables = {"PATH": os.environ["PATH"], "DGX_VLLM_RECORD_DIR": str(folder), **environment}
    done = subprocess.run(
        [sys.executable, "-I", "-c", source],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_inside_a_container(folder: Path, made: dict[str, Any], tmp_path: Path) -> None:
    """The record of this process is there and alive; a pipe, a link, a giant and a stranger's file stop nothing."""
    (folder / f"record-{os.getpid()}.json").write_text(json.dumps(made), encoding="utf-8")
    os.mkfifo(folder / "record-1.json")
    (folder / "record-2.json").symlink_to("/etc/passwd")
    (folder / "record-3.json").write_bytes(b"x" * (inside_module.FILE_BYTES + 1))
    (folder / "record-4.json").write_bytes(b"\xff\xfe{")
    (folder / "record-x.json").write_text("{}")
    (tmp_path / "tuned").mkdir()
    for name in ("E=1,N=2,device_name=NVIDIA_GB10.json", "README.md"):
        (tmp_path / "tuned" / name).touch()
    begun = time.monotonic()
    told = read_inside(folder, VLLM_TUNED_CONFIG_FOLDER=str(tmp_path / "tuned"))
    assert time.monotonic() - begun < 10
    records = read_records(told["records"])
    assert [record.pid for record in records.live] == [os.getpid()]
    assert len(records.unreadable) == 4
    assert told["tuned"] == ["E=1,N=2,device_name=NVIDIA_GB10.json"]
    assert "error" in told["manifest"]
    assert told["shipped"] is None


def test_inside_a_container_with_far_too_many_files(folder: Path) -> None:
    for number in range(200):
        (folder / f"record-{number}.json").write_text("{}")
    assert len(read_inside(folder)["records"]) == inside_module.MOST_FILES


def test_inside_a_container_without_records(tmp_path: Path) -> None:
    assert read_inside(tmp_path / "nothing")["records"] == []


def test_a_process_that_ended_has_no_start(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while inside_module.born(child.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.wait()
    assert inside_module.born(child.pid) is None


def test_the_recorder_and_the_reader_agree_on_the_start_of_a_process(made: dict[str, Any]) -> None:
    assert made["born"] == inside_module.born(os.getpid())


def test_the_source_is_short_enough_for_an_argument() -> None:
    assert len(Path(inside_module.__file__).read_bytes()) < 32_000


def test_the_source_is_found_in_a_zip_file_too(tmp_path: Path) -> None:
    """Ansible ships a module as one, so there is no file on the node whose text could be read."""
    package = "ansible_collections/dgx_vllm/spark/plugins/module_utils/health"
    with zipfile.ZipFile(tmp_path / "payload.zip", "w") as archive:
        for depth in range(1, package.count("/") + 2):
            archive.writestr("/".join([*package.split("/")[:depth], "__init__.py"]), "")
        archive.write(str(inside_module.__file__), f"{package}/inside.py")
    code = f"import inspect; from {package.replace('/', '.')} import inside; print(len(inspect.getsource(inside)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "payload.zip")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == len(Path(inside_module.__file__).read_text(encoding="utf-8"))
