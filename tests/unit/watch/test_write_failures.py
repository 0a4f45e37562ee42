"""Whatever becomes of the file of its state, a watch acts, says that it cannot keep it, and takes no server down."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from replica_watch.model import Report
from replica_watch.system import Memory

from helpers.fake_world import AT_ONCE, SOFT_STOP_SECONDS, World

WATCH = Path(__file__).resolve().parents[3] / "roles/dgx_vllm/files/watch"
OLD, NEW = Report("spark2", 7, "up", "ready", "one"), Report("spark2", 8, "up", "held", "one")


def failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


class Full:
    """A file that opens, and takes nothing."""

    def __init__(self, handle: int, *_: Any, **__: Any) -> None:
        self.handle = handle

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)

    def write(self, _: str) -> None:
        os.write(self.handle, b'{"host": "spa')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CALLS = ["pathlib.Path.mkdir", "os.open", "os.fdopen", "os.fsync", "pathlib.Path.replace"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_each_call_of_a_write_may_fail(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(str(tmp_path / "watch.json"))
    memory.save(OLD)
    world = World(2)
    world.until_served()
    assert world.worker.watch is not None
    world.worker.watch._save = memory.save
    with monkeypatch.context() as patch:
        patch.setattr(call, Full if call == "os.fdopen" else failing(number))
        world.worker.kill()
        world.run(2)
        assert world.until_served() <= 2 * AT_ONCE + SOFT_STOP_SECONDS, world.story()
    said = [line for line in world.worker.log if "cannot keep its state on the disk" in line]
    assert 1 <= len(said) <= 2, world.story()
    assert memory.load() == OLD


@pytest.mark.parametrize(("order", "left"), [("exit(); rename(*a)", OLD), ("rename(*a); exit()", NEW)])
def test_a_process_that_dies_at_the_rename_leaves_a_whole_file(
    order: str, left: Report, tmp_path: Path
) -> None:
    memory = Memory(str(tmp_path / "watch.json"))
    memory.save(OLD)
    program = (
        "import os, pathlib, sys; from replica_watch.model import Report; from replica_watch.system import Memory\n"
        "rename = pathlib.Path.replace\n"
        "def exit(): os._exit(9)\n"
        f"def replace(*a): {order}\n"
        "pathlib.Path.replace = replace\n"
        "Memory(sys.argv[1]).save(Report('spark2', 8, 'up', 'held', 'one'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "watch.json")],
        env={**os.environ, "PYTHONPATH": str(WATCH)}, check=False,
    )  # fmt: skip
    assert done.returncode == 9
    assert memory.load() == left
    memory.save(NEW)
    assert memory.load() == NEW


DAMAGED = {
    "empty": b"",
    "zeros": bytes(4096),
    "half": b'{"host": "spark2", "generation": 7, "desi',
    "NUL at its end": b'{"host": "spark2", "generation": 7, "desired": "up", "phase": "ready"}\0',
    "NUL in it": b'{"host": "spark2\\u0000", "generation": 7, "desired": "up", "phase": "ready"}',
    "other bytes": b"\xff\xfe\x00",
    "a number": b"1e999",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=list(DAMAGED))
@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_damaged_file_is_a_first_look_and_restarts_nothing(role: str, text: bytes, tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_bytes(text)
    memory = Memory(str(tmp_path / "watch.json"))
    assert memory.load() is None
    world = World(2)
    world.until_served()
    node = getattr(world, role)
    node.disk = None
    node.new_watch()
    world.run(600)
    assert world.until_served() <= 5
    assert set(world.runs()) == {1}, world.story()
    memory.save(node.watch.report)
    assert memory.load() == node.watch.report


def test_a_disk_that_hangs_delays_the_watch_by_its_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, sync = threading.Event(), os.fsync
    memory = Memory(str(tmp_path / "watch.json"), patience=0.05)
    memory.save(OLD)
    monkeypatch.setattr(os, "fsync", lambda handle: (hangs.wait(60), sync(handle)))
    begun = time.monotonic()
    for report in (Report("spark2", 8), NEW):
        with pytest.raises(OSError, match="the disk does not answer"):
            memory.save(report)
    assert time.monotonic() - begun < 30
    assert memory.load() == OLD
    hangs.set()
    memory.save(NEW)
    assert memory.load() == NEW
