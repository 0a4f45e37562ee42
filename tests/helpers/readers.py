"""Read a unit and an environment file back the way systemd and Docker read them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")


def docker_env_file(text: str) -> dict[str, str]:
    """`docker run --env-file`: blank lines and # lines are skipped, everything after the first = is the value."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.lstrip(" \t\r\v\f")
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name or re.search(r"\s", name):
            raise ValueError(f"docker would not read line {number}: {line!r}")
        found[name] = value
    return found


def joined_lines(unit: str) -> list[str]:
    """The logical lines of a unit file: comments out, a backslash at the end of a line goes on in the next."""
    lines: list[str] = []
    begun = ""
    for line in unit.splitlines():
        if line.lstrip().startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            begun += line[:-1] + " "
        else:
            lines.append(begun + line)
            begun = ""
    return lines


def setting(unit: str, name: str) -> list[str]:
    """Every value that the unit gives `name`."""
    return [line.partition("=")[2] for line in joined_lines(unit) if line.partition("=")[0] == name]


_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}


def systemd_words(line: str) -> list[str]:
    """The arguments that systemd passes on, after systemd.service(5) "Command lines": quotes, escapes, %% and $$."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    at = 0
    while at < len(line):
        char = line[at]
        at += 1
        if char == "\\":
            if at == len(line):
                raise ValueError(f"ends in a backslash: {line!r}")
            escaped = line[at]
            at += 1
            if escaped not in _ESCAPES and escaped not in "\\\"'":
                raise ValueError(f"unknown escape \\{escaped}: {line!r}")
            word = (word or "") + _ESCAPES.get(escaped, escaped)
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "\"'":
            quote, word = char, word or ""
        elif char in " \t\n\r":
            if word is not None:
                words.append(word)
            word = None
        elif char == ";" and word is None and (at == len(line) or line[at] in " \t"):
            raise ValueError(f"a ; of its own ends the command: {line!r}")
        else:
            word = (word or "") + char
    if quote:
        raise ValueError(f"a quote is not closed: {line!r}")
    if word is not None:
        words.append(word)
    return [_expanded(word) for word in words]


def _expanded(word: str) -> str:
    if re.search(r"%(?!%)", word.replace("%%", "")) or "$" in word.replace("$$", ""):
        raise ValueError(f"{word!r} has a specifier or a variable")
    return word.replace("%%", "%").replace("$$", "$")


def _nobody() -> list[str] | None:
    """How to leave root, for systemd's test mode refuses to run as root."""
    if os.geteuid() != 0:
        return []
    tool = shutil.which("setpriv")
    return [tool, "--reuid=65534", "--regid=65534", "--clear-groups"] if tool else None


def systemd_parser() -> str:
    """Why systemd's own parser cannot be asked here; '' when it can."""
    if not SYSTEMD.exists():
        return "there is no /lib/systemd/systemd"
    return "" if _nobody() is not None else "root, and no setpriv to leave it"


def parsed_by_systemd(lines: Sequence[str]) -> list[list[str]]:
    """What systemd itself makes of ExecStart= lines: its test mode loads a unit and prints it; nothing is started."""
    prefix = _nobody()
    assert prefix is not None
    with tempfile.TemporaryDirectory(prefix="dgx-vllm-unit-") as name:
        folder = Path(name)
        bare = "[Unit]\nDefaultDependencies=no\n"
        for target in ("basic", "shutdown", "sockets", "paths", "timers"):
            (folder / f"{target}.target").write_text(bare, encoding="utf-8")
        (folder / "default.target").write_text(f"{bare}Wants=probe.service\n", encoding="utf-8")
        commands = "".join(f"ExecStart={line}\n" for line in lines)
        (folder / "probe.service").write_text(f"{bare}[Service]\nType=oneshot\n{commands}", encoding="utf-8")
        folder.chmod(0o777)
        done = subprocess.run(
            [*prefix, str(SYSTEMD), "--test", "--user", "--unit=default.target"],
            env={"SYSTEMD_UNIT_PATH": name, "HOME": name, "XDG_RUNTIME_DIR": name, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    found = re.findall(r"^\s+Command Line: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    if len(found) != len(lines):
        raise ValueError(f"systemd took {len(found)} of {len(lines)} lines: {done.stderr[-2000:]}")
    return [[_expanded(word.replace("%", "%%")) for word in _printed(line)] for line in found]


def _printed(line: str) -> list[str]:
    """Undo the shell quoting in which systemd prints a command line."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|([^ "]+)', line)
    return [bare or re.sub(r"\\(.)", r"\1", quoted) for quoted, bare in words]
