"""The lock of a node (M15), and what the operator's side knows of the run that holds it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import run_lock
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import run

ANN = {"id": "a", "who": "ann@desk", "what": "site.yml"}
BEN = {"id": "b", "who": "ben@desk", "what": "tune.yml"}


def test_m15_one_run_has_it_until_it_frees_it(tmp_path: Path) -> None:
    lock = tmp_path / "run/run.json"
    run_lock.free(lock, "a")
    assert run_lock.take(lock, ANN) == {}
    assert run_lock.take(lock, ANN) == {}, "the same run goes on"
    assert run_lock.take(lock, BEN)["who"] == "ann@desk"
    run_lock.free(lock, "b")
    assert run_lock.read(lock)["id"] == "a"
    run_lock.free(lock, "a")
    assert run_lock.take(lock, BEN) == {}


def test_m15_a_run_that_is_gone_or_old_does_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "run.json"
    run_lock.take(lock, ANN)
    assert run_lock.take(lock, BEN, gone="c")
    assert run_lock.take(lock, BEN, gone="a") == {}
    later = time.time() + run_lock.STALE_S + 1
    monkeypatch.setattr(run_lock.time, "time", lambda: later)
    assert run_lock.take(lock, ANN) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"since": "x"}', '{"since": true, "id": null}'])
def test_m15_a_lock_that_cannot_be_read_is_held(text: str, tmp_path: Path) -> None:
    lock = tmp_path / "run.json"
    lock.write_text(text)
    holder = run_lock.take(lock, ANN)
    assert "is being changed by another run: an unknown operator" in run.sentence("one", holder, "/l")


def test_m15_only_a_process_of_this_place_is_known_to_have_ended() -> None:
    mine: dict[str, Any] = run.this_run(os.getpid(), ["/x/site.yml", "more.yml"])
    assert mine["what"] == "site.yml more.yml"
    assert not run.ended(mine)
    with subprocess.Popen(["sleep", "60"]) as other:
        theirs: dict[str, Any] = run.this_run(other.pid, ["site.yml"])
        assert not run.ended(theirs)
        other.kill()
    assert run.ended(theirs)
    assert not run.ended({**theirs, "place": "elsewhere"})
    assert run.ended({**mine, "id": f"{mine['place']} {mine['pid']} 1"}), "another process has its number now"
    for broken in ({}, {"place": mine["place"]}, {**theirs, "pid": "1; x"}):
        assert not run.ended(broken)
