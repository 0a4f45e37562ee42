"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils import files


def test_content_and_mode_in_a_folder_that_was_not_there(tmp_path: Path) -> None:
    place = tmp_path / "a/b/file"
    files.write(place, "één\n", 0o640)
    assert (place.read_text(encoding="utf-8"), place.stat().st_mode & 0o7777) == ("één\n", 0o640)


def test_a_new_mode_replaces_the_old_one_and_nothing_else_is_left(tmp_path: Path) -> None:
    files.write(tmp_path / "file", "old", 0o644)
    files.write(tmp_path / "file", "new", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_the_file_and_its_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.append(os.path.isdir(f"/proc/self/fd/{handle}")), sync(handle))
    )
    files.write(tmp_path / "file", "text", 0o644)
    assert synced == [False, True]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(tmp_path / "file", "old", 0o644)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / "file", "new", 0o644)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]
