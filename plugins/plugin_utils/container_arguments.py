"""What dgx_vllm_container_extra_args says, read as `docker run` reads it, and what must not be there.

Docker's grammar is pflag's: names are written whole, a value stands after = or is the next word, short forms may be
joined (`-dit`, `-v/a:/b`), a switch takes a value only after =, and the first other word is the image.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

VARIABLE = "dgx_vllm_container_extra_args"

_SWITCHES = """
    detach disable-content-trust help init interactive no-healthcheck oom-kill-disable privileged publish-all quiet
    read-only rm sig-proxy tty use-api-socket
"""
_VALUES = """
    add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile
    cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems
    detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops dns
    dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd health-interval
    health-retries health-start-interval health-start-period health-timeout hostname io-maxbandwidth io-maxiops ip
    ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory
    memory-reservation memory-swap memory-swappiness mount name network network-alias oom-score-adj pid pids-limit
    platform publish pull restart runtime security-opt shm-size stop-signal stop-timeout storage-opt sysctl tmpfs
    ulimit user userns uts volume volume-driver volumes-from workdir
"""
SWITCHES, VALUES = frozenset(_SWITCHES.split()), frozenset(_VALUES.split())
SHORT = {
    "a": "attach", "c": "cpu-shares", "d": "detach", "e": "env", "h": "hostname", "i": "interactive", "l": "label",
    "m": "memory", "p": "publish", "P": "publish-all", "q": "quiet", "t": "tty", "u": "user", "v": "volume",
    "w": "workdir",
}  # fmt: skip
ALIASES = {"net": "network", "net-alias": "network-alias", "dns-opt": "dns-option"}

_UNIT = "remove it, because the unit needs the container in the foreground, by its own name"
_SECRET = "set dgx_vllm_extra_env instead, which is written to a file that only root reads"
_HOST_NETWORK = "remove it, because the server uses the host's network, where Docker refuses it"
REFUSED = {
    "attach": _UNIT,
    "cidfile": "remove it, because Docker refuses to start when that file exists",
    "detach": _UNIT,
    "detach-keys": _UNIT,
    "entrypoint": "remove it, because the image's entry point reads the server's settings",
    "env": _SECRET,
    "env-file": _SECRET,
    "help": "remove it, because nothing would start",
    "interactive": _UNIT,
    "ip": _HOST_NETWORK,
    "ip6": _HOST_NETWORK,
    "link": _HOST_NETWORK,
    "link-local-ip": _HOST_NETWORK,
    "mac-address": _HOST_NETWORK,
    "memory": "set dgx_vllm_container_memory instead",
    "name": _UNIT,
    "network-alias": _HOST_NETWORK,
    "pids-limit": "set dgx_vllm_container_pids_limit instead",
    "privileged": "the server does not need it: remove it",
    "pull": "remove it, because the image is checked and started by its id",
    "restart": "remove it, because systemd restarts the server, and Docker refuses it together with --rm",
    "rm": "remove it, because the role sets it",
    "shm-size": "set dgx_vllm_container_shm_size instead",
    "sig-proxy": _UNIT,
    "stop-signal": "remove it, because vLLM ends in order at SIGTERM",
    "tty": _UNIT,
}
"""Options that break the unit or undo the container's protection; off (`--tty=false`) a switch does no harm."""

OWN_TARGETS = ("/models", "/cache", "/tuned", "/opt/dgx-vllm")
ALWAYS_WEAK = (
    "cap-add",
    "cgroup-parent",
    "device-cgroup-rule",
    "oom-kill-disable",
    "use-api-socket",
    "volumes-from",
)
NAMESPACES = ("cgroupns", "ipc", "pid", "userns", "uts")
NO_HARM = ("/dev/infiniband", "/dev/shm", "/dev/nvidia")
CLOSED = (
    "/boot", "/dev", "/etc/dgx-vllm", "/etc/docker", "/etc/shadow", "/etc/sudoers", "/proc", "/root", "/run", "/sys",
    "/var/lib/containerd", "/var/lib/docker", "/var/run",
)  # fmt: skip
"""Whoever reads these folders may own the host; in READ_ONLY whoever writes."""
READ_ONLY = ("/bin", "/etc", "/lib", "/sbin", "/usr")


class Argument(NamedTuple):
    """One option; `value` is None for a switch without =, or where a value is missing."""

    name: str
    value: str | None
    written: str

    @property
    def off(self) -> bool:
        """Whether it is a switch that is turned off."""
        return self.name in SWITCHES and (self.value or "").lower() in ("0", "f", "false")


def read(words: Sequence[object]) -> tuple[list[Argument], list[str]]:
    """The options, and a sentence about each word that Docker would not read as one."""
    found: list[Argument] = []
    problems: list[str] = []
    rest = [str(word) for word in words]
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word in ("-", "--"):
            problems.append(
                f"{VARIABLE} has {word!r}, which is not an option, so Docker would take it or the next word for the "
                "image; write options only, each value after = or as the item after its option."
            )
            break
        found += _long(word, rest, problems) if word.startswith("--") else _short(word, rest, problems)
    return found, problems


def _long(word: str, rest: list[str], problems: list[str]) -> list[Argument]:
    name, equals, value = word[2:].partition("=")
    written, name = f"--{name}", ALIASES.get(name, name)
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        problems.append(f"{VARIABLE} has {word[:40]!r}, which is not an option of docker run; correct it.")
        return []
    if equals:
        return [Argument(name, value, written)]
    if name in VALUES:
        return [Argument(name, _next(written, rest, problems), written)]
    if name not in SWITCHES and rest and not rest[0].startswith("-"):
        problems.append(
            f"{VARIABLE} has {written}, which may take the next item or not; write {written}=VALUE in one item."
        )
        rest.pop(0)
    return [Argument(name, None, written)]


def _short(word: str, rest: list[str], problems: list[str]) -> list[Argument]:
    found: list[Argument] = []
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        name = SHORT.get(letter)
        if name is None:
            problems.append(
                f"{VARIABLE} has -{letter} in {word[:40]!r}, which docker run does not have; correct it."
            )
            return found
        written = f"-{letter}"
        if letters.startswith("="):
            return [*found, Argument(name, letters[1:], written)]
        if name in SWITCHES:
            found.append(Argument(name, None, written))
        else:
            return [*found, Argument(name, letters or _next(written, rest, problems), written)]
    return found


def _next(written: str, rest: list[str], problems: list[str]) -> str | None:
    if rest:
        return rest.pop(0)
    problems.append(
        f"{VARIABLE} ends with {written}, which would take the image for its value; add its value."
    )
    return None


def mistakes(words: Sequence[object]) -> Iterator[str]:
    """One sentence per option that must not be in dgx_vllm_container_extra_args; none shows a value."""
    found, problems = read(words)
    yield from problems
    for argument in found:
        reason = _refusal(argument)
        if reason and not argument.off:
            yield f"{VARIABLE} has {argument.written}; {reason}."


def _refusal(argument: Argument) -> str:
    name, value = argument.name, argument.value
    if name in REFUSED:
        return REFUSED[name]
    if name == "network" and value != "host":
        return "remove it, because health checks, watch and replica reach the server on the host's network"
    if name == "log-driver" and value not in ("json-file", "local"):
        return "set it to json-file or local, because other drivers refuse the role's limits of the log"
    target = _mounted(argument)[1]
    if target in OWN_TARGETS:
        return f"choose a folder other than {target} in the container, which the role itself mounts there"
    return ""


def weakening(words: Sequence[object]) -> list[str]:
    """The options that open the host to the container, as they are written with their values."""
    return [_said(argument) for argument in read(words)[0] if not argument.off and _weak(argument)]


def _said(argument: Argument) -> str:
    return argument.written if argument.value is None else f"{argument.written}={argument.value}"


def _weak(argument: Argument) -> bool:
    name, value = argument.name, argument.value or ""
    if name in ALWAYS_WEAK or name not in SWITCHES | VALUES:
        return True
    if name in NAMESPACES:
        return value == "host" or value.startswith("container:")
    if name == "security-opt":
        return value.replace(":", "=") not in ("no-new-privileges", "no-new-privileges=true")
    if name == "device":
        return not value.startswith((*NO_HARM, "nvidia.com/"))
    source, _, writable = _mounted(argument)
    return bool(source) and _opens(source, writable)


def _mounted(argument: Argument) -> tuple[str, str, bool]:
    """Path on the host ('' for a volume), path in the container, and whether it can be written."""
    value = argument.value or ""
    if argument.name == "volume":
        source, _, after = value.partition(":")
        target, _, options = after.partition(":")
        host = posixpath.normpath(source) if source.startswith(("/", ".", "~")) else ""
        return host, posixpath.normpath(target or source), "ro" not in options.split(",")
    if argument.name == "mount":
        fields = dict(part.partition("=")[::2] for line in csv.reader([value]) for part in line)
        source = fields.get("source", fields.get("src", ""))
        opened = "volume-opt" in fields or source.startswith(("/", "."))
        target = fields.get("target", fields.get("dst", fields.get("destination", "")))
        read_only = any(fields.get(name, "no") in ("", "1", "true") for name in ("readonly", "ro"))
        return (
            posixpath.normpath(source) if opened and "volume-opt" not in fields else "/" * opened,
            posixpath.normpath(target) if target else "",
            not read_only,
        )
    return "", "", False


def _opens(source: str, writable: bool) -> bool:
    path = "/" + source.strip("/")
    if path.startswith(NO_HARM):
        return False
    above = "/" if path == "/" else f"{path}/"
    inside = any(path == folder or path.startswith(f"{folder}/") for folder in CLOSED)
    written = any(path == folder or path.startswith(f"{folder}/") for folder in READ_ONLY)
    holds = any(folder.startswith(above) for folder in (*CLOSED, *READ_ONLY))
    return inside or holds or (written and writable) or path.endswith((".sock", "/home"))
