"""Reading and writing of source files, with errors in one sentence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from . import PatchError


def read(path: Path) -> str:
    """The text of a file, with its line ends unchanged."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise PatchError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise PatchError(f"{path} is not UTF-8 text; install vLLM again.") from None


def write(path: Path, text: str) -> None:
    """Replace a file atomically, keeping its mode (0644 for a new one)."""
    real = path.resolve()
    mode = real.stat().st_mode & 0o7777 if real.exists() else 0o644
    try:
        handle, temporary = tempfile.mkstemp(dir=real.parent, prefix=".sm121-")
    except OSError as error:
        raise PatchError(f"{real.parent} cannot be written ({error.strerror}): run as its owner.") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode("utf-8"))
        os.chmod(temporary, mode)
        os.replace(temporary, real)
    except BaseException:
        os.unlink(temporary)
        raise
