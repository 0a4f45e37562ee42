"""The ledger survives damage, power cuts, full disks and a second run at the same time."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import ledger


@pytest.fixture()
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.json"


def test_no_ledger_is_an_empty_one(path: Path) -> None:
    assert ledger.read(path) == {}


@pytest.mark.parametrize("text", ['{"packages": ["docker', "", "\0" * 9, "[]", "null", "[" * 100_000])
def test_a_damaged_ledger_stops_with_a_sentence_and_stays_as_it_is(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    for what in (lambda: ledger.read(path), lambda: ledger.add(path, {"packages": ["x"]}, write=True)):
        with pytest.raises(ledger.LedgerError, match=r"ledger.json is damaged .* restore it from a backup"):
            what()
    assert path.read_text() == text


def test_a_ledger_that_cannot_be_read_is_not_an_empty_one(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(ledger.LedgerError, match="cannot be read: Is a directory"):
        ledger.read(path)


def test_lists_grow_and_values_are_replaced(path: Path) -> None:
    assert ledger.add(path, {"packages": ["b"], "archive": "one"}, write=True)[1]
    merged, changed = ledger.add(path, {"packages": ["a", "b"], "archive": "two"}, write=True)
    assert (merged, changed) == ({"packages": ["b", "a"], "archive": "two"}, True)
    assert json.loads(path.read_text()) == merged
    assert ledger.add(path, {"packages": ["a"]}, write=True) == (merged, False)


def test_what_is_gone_leaves_its_list_and_nothing_else(path: Path) -> None:
    ledger.add(path, {"files": ["a", "b"], "archive": "one"}, write=True)
    merged, changed = ledger.add(path, {}, write=True, gone={"files": ["a"], "unknown": ["x"]})
    assert (merged, changed) == ({"files": ["b"], "archive": "one"}, True)
    assert ledger.add(path, {}, write=True, gone={"files": ["a"]}) == (merged, False)


def test_check_mode_writes_nothing(path: Path) -> None:
    assert ledger.add(path, {"packages": ["a"]}, write=False) == ({"packages": ["a"]}, True)
    assert not path.parent.exists()


def test_two_runs_at_once_lose_nothing(path: Path) -> None:
    runs = [
        threading.Thread(target=ledger.add, args=(path, {"packages": [f"p{number}"]}, True))
        for number in range(20)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(ledger.read(path)["packages"]) == sorted(f"p{number}" for number in range(20))


def test_a_write_that_fails_leaves_the_old_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.add(path, {"packages": ["a"]}, write=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ledger.LedgerError, match="cannot be written: No space left on device"):
        ledger.add(path, {"packages": ["b"]}, write=True)
    assert ledger.read(path) == {"packages": ["a"]}
    assert [entry.name for entry in path.parent.iterdir()] == ["ledger.json"]


def test_the_module_notes_and_shows_the_difference(run_module, path: Path) -> None:
    done = run_module("dgx_vllm_ledger", add={"packages": ["a"]}, path=str(path))
    assert (done["changed"], done["ledger"]) == (True, {"packages": ["a"]})
    assert '"a"' in done["diff"]["after"] and '"a"' not in done["diff"]["before"]
    assert run_module("dgx_vllm_ledger", add={"packages": ["a"]}, path=str(path))["changed"] is False


@pytest.mark.parametrize("name", ["dgx_vllm_ledger", "dgx_vllm_state"])
def test_modules_stop_at_a_damaged_ledger(run_module, path: Path, name: str) -> None:
    path.parent.mkdir()
    path.write_text("{")
    place = (
        {"add": {}, "path": str(path)} if name == "dgx_vllm_ledger" else {"data_dir": str(path.parent.parent)}
    )
    failed = run_module(name, **place)
    assert failed["failed"] and "is damaged" in failed["msg"]
