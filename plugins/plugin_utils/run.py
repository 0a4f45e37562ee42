"""Which run of ansible-playbook this is, and whether another one has certainly ended. For the operator's machine."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def this_run(pid: int, playbooks: Sequence[str]) -> dict[str, str]:
    """The run whose main process is `pid`: its `id`, `who` started `what`, and the `place` where `pid` means it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A container with a user that has no name.
        user = str(os.getuid())
    place = _place()
    return {
        "id": f"{place} {pid} {_started(pid)}",
        "who": f"{user}@{platform.node()}",
        "what": " ".join(Path(name).name for name in playbooks) or "a playbook",
        "place": place,
        "pid": str(pid),
    }


def ended(holder: Mapping[str, Any]) -> bool:
    """Whether the run that holds a lock has certainly ended: its process was one of this place, and is gone.

    A run of another machine, of another boot or of another container is not known.
    """
    place, pid = str(holder.get("place", "")), str(holder.get("pid", ""))
    if not place or place != _place() or not pid.isdecimal():
        return False
    now = _started(int(pid))
    return now != "alive" and holder.get("id") != f"{place} {pid} {now}"


def sentence(host: str, holder: Mapping[str, Any], path: str) -> str:
    """What the operator reads whose run is refused."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(holder["since"])))
    who, what = str(holder.get("who", "an unknown operator")), str(holder.get("what", "a playbook"))
    return (
        f"{host} is being changed by another run: {who} runs {what} since {since}. Wait until it has ended; if it was"
        f" cut off, free the node with: ansible {host} -b -m ansible.builtin.file -a 'path={path} state=absent'"
    )


def _place() -> str:
    """Where a process id means one process: this boot and this namespace; the host's name without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _started(pid: int) -> str:
    """When process `pid` began, in a form that only compares; '' without one, `alive` where that cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
