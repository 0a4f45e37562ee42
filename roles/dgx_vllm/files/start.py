#!/usr/bin/env python3
"""What dgx-vllm.service does around `docker run`. Part of a release, so that a rollback brings the matching one.

  check  (ExecCondition)   refuses a start of its own accord after the machine died twice while this release started
  wait   (ExecStartPre)    waits for what the container needs: CDI, device nodes, rails; then notes that a start begins
  ready  (ExecStartPost)   watches in the background until the server serves, and removes the note
  end    (ExecStopPost)    notes that the run ended while the machine lived

The note is one JSON file: {"release", "boot", "starting", "deaths", "refused"}. `starting` with an earlier boot means
that the machine died during the start: `deaths` counts these. `refused` is the boot in which `check` refused.
Standard library only; Python 3.9 and newer.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn

LIMIT = 300.0
"""Seconds that `wait` waits; the unit's TimeoutStartSec is longer."""
PAUSE = 2.0
READY_LIMIT = 3600.0
"""A machine that has lived for so long did not die of the start, whatever the server answers."""
DEATHS = 2
"""After so many starts that the machine did not survive, the next one needs the operator."""
JUST_NOW = 10.0
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Docker's defaults; a device of a later folder wins."""

Run = Callable[[Sequence[str]], str]
"""Argument vector -> standard output, "" for a command that fails."""

_KIND = re.compile(r"""\bkind["']?\s*:\s*["']?nvidia\.com/gpu["']?\s*(?:[,}]|$)""", re.MULTILINE)
_ALL = re.compile(r"""\bname["']?\s*:\s*["']?all["']?\s*(?:[,}]|$)""", re.MULTILINE)
_LIBRARY = re.compile(
    r"""\bhostPath["']?\s*:\s*["']?(/[^\s"',:]+/lib(?:cuda|nvidia-ml)\.so\.(\d+\.[\d.]*\d))"""
)
_DRIVER = re.compile(r"^NVRM version:.*?\s(\d{3,}\.\d+(?:\.\d+)*)\s", re.MULTILINE)
REFRESH = (
    "run systemctl restart nvidia-cdi-refresh.service, or with a toolkit before 1.18 "
    "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
)


class Lack(NamedTuple):
    """What is missing, and what to do if it does not come."""

    what: str
    remedy: str


class Node(NamedTuple):
    """The machine; tests put another root and other commands in its place."""

    root: Path
    run: Run

    def path(self, name: str) -> Path:
        """A path of the machine."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """The text of a file, "" if it cannot be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @property
    def boot(self) -> str:
        """The id of this boot."""
        return self.read("/proc/sys/kernel/random/boot_id").strip()


def run(argv: Sequence[str]) -> str:
    """Run a command; never raises."""
    try:
        done = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def say(text: str) -> None:
    """One line in the journal."""
    print(f"[dgx-vllm] {text}", flush=True)


# What the container needs


def cdi_folders(node: Node) -> Sequence[str]:
    """Where this Docker looks for specifications; its defaults if it does not say."""
    try:
        folders = json.loads(node.run(["docker", "info", "--format", "{{json .CDISpecDirs}}"]))
    except ValueError:
        folders = None
    return [str(folder) for folder in folders] if isinstance(folders, list) and folders else CDI_FOLDERS


def cdi_specification(node: Node, folders: Sequence[str]) -> tuple[str, str]:
    """Name and text of the specification from which Docker takes nvidia.com/gpu=all; ("", "") without one."""
    found = ("", "")
    for folder in folders:
        try:
            names = sorted(os.listdir(node.path(folder)))
        except OSError:
            continue
        for name in names:
            text = node.read(f"{folder}/{name}") if name.endswith((".yaml", ".json")) else ""
            if _KIND.search(text) and _ALL.search(text):
                found = (f"{folder}/{name}", text)
    return found


def lacks_of_cdi(node: Node) -> Iterator[Lack]:
    """A specification of the GPU whose libraries are there and belong to the loaded driver. Unknown is not wrong."""
    folders = cdi_folders(node)
    name, text = cdi_specification(node, folders)
    if not name:
        # Toolkit 1.19.0 orders its unit after multi-user.target, which waits for this start: without this, for ever.
        node.run(
            [
                "systemctl",
                "start",
                "--no-block",
                "--job-mode=ignore-dependencies",
                "nvidia-cdi-refresh.service",
            ]
        )
        yield Lack(f"no CDI specification in {' or '.join(folders)} names nvidia.com/gpu=all", REFRESH)
        return
    libraries = dict(_LIBRARY.findall(text))
    gone = next((library for library in libraries if not node.path(library).exists()), "")
    loaded = _DRIVER.search(node.read("/proc/driver/nvidia/version"))
    if gone:
        yield Lack(f"{name} names {gone}, which is gone", REFRESH)
    elif loaded and libraries and loaded[1] not in libraries.values():
        versions = ", ".join(sorted(set(libraries.values())))
        yield Lack(f"{name} has libraries of driver {versions}, and {loaded[1]} is loaded", "reboot the node")
    elif "/dev/nvidiactl" in text and not re.search(r"/dev/nvidia-uvm\b(?!-)", text):
        yield Lack(f"{name} lacks /dev/nvidia-uvm", REFRESH)


def lacks_of_devices(node: Node, device: str) -> Iterator[Lack]:
    """A device node of the driver, which nvidia-modprobe makes as root."""
    if not node.path(device).exists():
        node.run(["nvidia-modprobe", "-u", "-c", "0"])
    if not node.path(device).exists():
        yield Lack(
            f"{device} is missing",
            "run nvidia-modprobe -u -c 0, and nvidia-smi to see whether the driver is there",
        )


def lacks_of_rails(node: Node, rdma: bool, addresses: Sequence[str]) -> Iterator[Lack]:
    """RDMA devices and the addresses (INTERFACE=ADDRESS) of a node of a replica."""
    if rdma and not list(node.path("/dev/infiniband").glob("uverbs*")):
        yield Lack(
            "/dev/infiniband/uverbs* is missing",
            "plug the cable in (DGX OS turns the adapter off without one), then run modprobe -a mlx5_ib ib_uverbs",
        )
    present = node.run(["ip", "-o", "-4", "address", "show"]) if addresses else ""
    for entry in addresses:
        interface, _, address = entry.partition("=")
        if not re.search(rf"\binet {re.escape(address)}/", present):
            yield Lack(
                f"{interface} has no address {address}",
                f"look at ip address show {interface}, at the cable and at the other node",
            )


def lacks(node: Node, options: argparse.Namespace) -> list[Lack]:
    """Everything that is missing now."""
    found = list(lacks_of_devices(node, "/dev/nvidia-uvm" if options.gpu == "cdi" else "/dev/nvidiactl"))
    if options.gpu == "cdi":
        found += lacks_of_cdi(node)
    return found + list(lacks_of_rails(node, options.rdma, options.address))


def wait(
    missing: Callable[[], list[Lack]],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether nothing is missing within LIMIT."""
    begun, said = clock(), ""
    while True:
        found = missing()
        if not found:
            if said:
                say(f"everything is there after {clock() - begun:.0f} s")
            return True
        text = "; ".join(lack.what for lack in found)
        if clock() - begun >= LIMIT:
            remedies = "; ".join(dict.fromkeys(lack.remedy for lack in found))
            say(
                f"does not start: after {LIMIT:.0f} s {text}. To correct it: {remedies}; then systemctl start dgx-vllm."
            )
            return False
        if text != said:
            say(f"waits for up to {LIMIT - (clock() - begun):.0f} s: {text}")
            said = text
        sleep(PAUSE)


# The note of the start


class Note:
    """The note in its file, which must survive a power cut."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any]:
        """The note; {} if there is none, or none that can be read."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def save(self, **content: Any) -> None:
        """Replace it, on the disk when this returns."""
        new = self._path.with_suffix(".new")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # Some file systems cannot.
            os.fsync(folder)
        os.close(folder)

    def remove(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def deaths(note: dict[str, Any], release: str, boot: str) -> int:
    """How often in a row the machine died while this release was starting."""
    if note.get("release") != release:
        return 0
    died = bool(note.get("starting")) and note.get("boot") != boot
    return int(note.get("deaths", 0)) + died


def docker_has_just_started(node: Node) -> bool:
    """Whether this start may be Docker's doing, which wants the unit."""
    shown = node.run(
        ["systemctl", "show", "docker.service", "--property=ActiveEnterTimestampMonotonic", "--value"]
    )
    return shown.strip().isdigit() and time.monotonic() - int(shown) / 1e6 < JUST_NOW


def of_its_own_accord(node: Node, note: dict[str, Any]) -> bool:
    """Whether the boot or Docker starts the unit, not somebody by hand."""
    if docker_has_just_started(node):
        return True
    booting = node.run(["systemctl", "is-system-running"]).strip() in ("initializing", "starting")
    return booting and note.get("refused") != node.boot


def check(node: Node, note: Note, release: str) -> bool:
    """Whether the start may go on."""
    known = note.load()
    died = deaths(known, release, node.boot)
    if died < DEATHS:
        if died:
            say("the machine died while this release was starting; it is tried once more")
        return True
    if not of_its_own_accord(node, known):
        say(f"the machine died {died} times in a row while this release was starting; it is started by hand")
        return True
    note.save(release=release, boot=node.boot, starting=False, deaths=died, refused=node.boot)
    say(
        f"does not start: the machine died {died} times in a row while this release was starting. Lower "
        "dgx_vllm_gpu_memory_utilization or dgx_vllm_max_num_seqs and run site.yml, or try again with "
        "systemctl start dgx-vllm."
    )
    return False


def end(note: Note) -> None:
    """The run ended while the machine lived: forget its start, but not earlier deaths."""
    known = note.load()
    if known.get("deaths"):
        note.save(**{**known, "starting": False})
    else:
        note.remove()


def serves(port: int, host: str) -> bool:
    """Whether the server on this node answers /health with 200."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def replica_serves(watch: Path, run_id: str) -> bool:
    """Whether the watch has seen this run of the unit ready."""
    try:
        report = json.loads(watch.read_text(encoding="utf-8"))
        return bool(report["phase"] == "ready" and report["run"] == run_id)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def await_ready(options: argparse.Namespace, note: Note) -> None:
    """Remove the note once the server serves, in a process of the unit that systemd does not wait for."""
    if os.fork():
        return
    begun = time.monotonic()
    while time.monotonic() - begun < READY_LIMIT:
        if options.watch:
            done = replica_serves(Path(options.watch), os.environ.get("INVOCATION_ID", ""))
        else:
            done = serves(options.port, options.host)
        if done:
            break
        time.sleep(5)
    note.remove()


def stopped(*_: object) -> NoReturn:
    """`systemctl stop` before there is a server is not a failure."""
    say("stopped before the server was started")
    sys.exit(0)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("check", "wait", "ready", "end"))
    parser.add_argument("--note", type=Path, required=True)
    parser.add_argument("--release", default="")
    parser.add_argument("--gpu", choices=("cdi", "runtime"), default="cdi")
    parser.add_argument("--rdma", action="store_true")
    parser.add_argument("--address", action="append", default=[], metavar="INTERFACE=ADDRESS")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--watch", default="", metavar="REPORT")
    return parser


def main(words: Sequence[str]) -> int:
    """The exit status for systemd."""
    options = arguments().parse_args(words)
    node, note = Node(Path("/"), run), Note(options.note)
    if options.verb in ("check", "wait"):
        signal.signal(signal.SIGTERM, stopped)
    if options.verb == "check":
        return 0 if check(node, note, options.release) else 1
    if options.verb == "wait":
        if not wait(lambda: lacks(node, options)):
            return 1
        died = deaths(note.load(), options.release, node.boot)
        note.save(release=options.release, boot=node.boot, starting=True, deaths=died)
    elif options.verb == "ready":
        await_ready(options, note)
    else:
        end(note)
    return 0


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except Exception as error:
        # A mistake of this program must not keep the server down.
        say(f"{' '.join(sys.argv[1:2])}: {type(error).__name__}: {error}")
        status = 0
    sys.exit(status)
