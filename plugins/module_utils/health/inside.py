"""What only the serving container can tell, as one JSON object: its manifest, its processes' records, its MoE configs.

The text of this file is run in the container by `docker exec … python3 -c`, so it needs nothing but Python. It reads
and judges nothing; what it prints is data of another program.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

MANIFEST = "/opt/dgx-vllm/manifest.json"
RECORDS = "/tmp/dgx-vllm"
CONFIGS = "/app/vllm/vllm/model_executor/layers/fused_moe/configs"
"""Where the image documents its MoE config; a link leads from here to the installed package."""

FILE_BYTES = 1 << 20
MOST_FILES = 32
MOST_NAMES = 4000


def text_of(path: str) -> str:
    """The text of a regular file of at most FILE_BYTES; OSError otherwise, and never a wait for a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is not a file")
        data = stream.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise OSError(f"{path} has more than {FILE_BYTES} bytes")
    return data.decode("utf-8", "replace")


def born(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def document(path: str) -> dict[str, str]:
    """The text of a file, or why there is none."""
    try:
        return {"text": text_of(path)}
    except OSError as error:
        return {"error": str(error)}


def records(folder: str) -> list[dict[str, Any]]:
    """The record files of a folder, the newest ones, each with the start of the process that its name tells."""
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(r"record-[0-9]{1,9}\.json", name)]
        names.sort(key=lambda name: os.lstat(os.path.join(folder, name)).st_mtime, reverse=True)
    except OSError:
        return []
    found = []
    for name in names[:MOST_FILES]:
        pid = int(name[7:-5])
        found.append({"pid": pid, "born": born(pid), **document(os.path.join(folder, name))})
    return found


def configs(folder: str) -> list[str] | None:
    """The MoE config files of a folder; None if it cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if re.fullmatch(r"E=.*\.json", name))[:MOST_NAMES]
    except OSError:
        return None


def everything() -> dict[str, Any]:
    """All of it."""
    tuned = os.environ.get("VLLM_TUNED_CONFIG_FOLDER", "")
    return {
        "manifest": document(MANIFEST),
        "records": records(os.environ.get("DGX_VLLM_RECORD_DIR") or RECORDS),
        "shipped": configs(CONFIGS),
        "tuned": configs(tuned) if tuned else [],
    }


if __name__ == "__main__":
    print(json.dumps(everything()))
