"""Writing files so that neither a reader nor a power cut meets half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write(path: Path, text: str, mode: int) -> None:
    """Replace `path` with `text` at once: a reader sees the old file or the new one, and so does a crash.

    The folder is made if it is missing. The content is on the disk when this returns (fsync), and so is the name where
    the file system can promise that.
    Raises OSError, and then leaves the old file as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            os.fchmod(handle, mode)
            stream.write(text)
            stream.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:
        pass  # Some file systems cannot (CIFS, FUSE); the file is in its place, and its content is on the disk.
    finally:
        os.close(folder)
