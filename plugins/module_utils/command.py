"""Running a command on a node without ever raising: a missing tool is data, not an exception."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

MISSING = 127
"""Return code of a tool that is not installed (the shell's own convention)."""

TIMED_OUT = 124
"""Return code of a tool that ran past its limit (the convention of timeout(1))."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


COMPLAINT_LINES = 3


class Completed(NamedTuple):
    """What a command left: its return code and its two streams as text."""

    rc: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The last lines that are not blank, standard error first; empty if there are none.

        Several, because tools put the cause first and a hint or a version last.
        """
        for stream in (self.stderr, self.stdout):
            lines = [line.strip() for line in stream.splitlines() if line.strip()]
            if lines:
                return " / ".join(lines[-COMPLAINT_LINES:])
        return ""


Runner = Callable[[Sequence[str]], Completed]
"""Takes an argument vector, returns how the command ended. Tests pass a fake."""


def run(
    argv: Sequence[str], timeout: float = 60.0, environment: Mapping[str, str] | None = None
) -> Completed:
    """Run `argv` in the C locale for at most `timeout` s; a missing tool or a timeout is a return code.

    `environment` holds variables that the command gets on top of this process's own, for what must not be
    readable in an argument.
    """
    variables = {**os.environ, "LC_ALL": "C", "PATH": SEARCH_PATH, **(environment or {})}
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=variables,
            timeout=timeout,
        )
    except FileNotFoundError:
        return Completed(MISSING, "", f"{argv[0]} is not installed")
    except PermissionError:
        return Completed(126, "", f"{argv[0]} cannot be executed by this user")
    except subprocess.TimeoutExpired:
        return Completed(TIMED_OUT, "", f"{argv[0]} gave no answer within {timeout:g} s")
    return Completed(
        done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    )
