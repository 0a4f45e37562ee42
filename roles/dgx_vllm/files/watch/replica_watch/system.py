"""The real surroundings of a watch: systemd and Docker, the server's API, its state file."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import math
import os
import re
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, NamedTuple, Optional

from replica_watch.model import UNKNOWN, Metrics, Report, Unit

Run = Callable[[Sequence[str], float], tuple[int, str]]
"""(argument vector, timeout in s) -> (return code, standard output); 127 for what is not there or too slow."""

PROPERTIES = (
    "ActiveState", "InvocationID", "ExecMainStatus", "MainPID", "Result", "ExecMainStartTimestampMonotonic",
    "ActiveExitTimestampMonotonic", "ExecMainExitTimestampMonotonic",
)  # fmt: skip
_SAMPLE = re.compile(r"^(vllm:[a-z_]+)(?:\{[^}]*\})?\s+([0-9.eE+-]+)", re.MULTILINE)
MAX_BODY = 4 * 1024 * 1024


def run(argv: Sequence[str], timeout: float) -> tuple[int, str]:
    """Run a command; never raises."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 127, ""
    return done.returncode, done.stdout.decode("utf-8", "replace")


class SystemdUnits:
    """The server's unit and its container."""

    def __init__(self, unit: str, container: str, runner: Run = run) -> None:
        self._unit, self._container, self._run = unit, container, runner

    def show(self) -> Unit:
        """What systemd says now; UNKNOWN when it does not answer in time."""
        code, text = self._run(["systemctl", "show", self._unit, f"--property={','.join(PROPERTIES)}"], 10.0)
        found = dict(line.partition("=")[::2] for line in text.splitlines())
        if code != 0 or "ActiveState" not in found:
            return Unit(UNKNOWN)
        started = _whole(found.get("ExecMainStartTimestampMonotonic", ""))
        begun = found.get("ExecMainStartTimestampMonotonic") != "0"
        return Unit(
            active=found["ActiveState"],
            run=found.get("InvocationID", ""),
            status=_whole(found.get("ExecMainStatus", "")),
            main_pid=_whole(found.get("MainPID", "")),
            result=found.get("Result", ""),
            # The unit may have left "active" for the last time in an earlier run. A stop before the server's start is
            # the only end without a server that is a success.
            ordered=started
            < _whole(found.get("ActiveExitTimestampMonotonic", ""))
            < _whole(found.get("ExecMainExitTimestampMonotonic", ""))
            or (not begun and found.get("Result") == "success"),
            begun=begun,
        )

    def start(self) -> None:
        """Start it; failures before must not count against systemd's start limit."""
        self._run(["systemctl", "reset-failed", self._unit], 10.0)
        self._run(["systemctl", "start", "--no-block", self._unit], 10.0)

    def stop(self, hard: bool) -> None:
        """Order the stop first: otherwise systemd would see the killed container as a failure and restart it."""
        self._run(["systemctl", "stop", "--no-block", self._unit], 10.0)
        if hard:
            self._run(["docker", "kill", self._container], 20.0)

    def shutting_down(self) -> bool:
        """Whether the machine is on its way down."""
        return self._run(["systemctl", "is-system-running"], 10.0)[1].strip() == "stopping"


def _whole(text: str) -> int:
    return int(text) if text.lstrip("-").isdigit() else 0


class Answer(NamedTuple):
    """An HTTP answer, the names of its headers in small letters; status 0 when no whole one came in time."""

    status: int
    text: str
    headers: Mapping[str, str]


SILENCE = Answer(0, "", {})


def exchange(
    address: str,
    port: int,
    method: str,
    path: str,
    timeout: float,
    *,
    payload: Optional[bytes] = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    limit: int = MAX_BODY,
    source: str = "",
) -> Answer:
    """One HTTP request, from the address `source`, with one deadline of `timeout` seconds for all of it.

    A peer or a server that sends a byte now and then keeps nobody waiting for longer, and neither does a look-up.
    """
    connection = http.client.HTTPConnection(
        address, port, timeout=timeout, source_address=(source, 0) if source else None
    )
    found: list[Answer] = []
    # http.client forgets the socket of an answer that ends with the connection, while it still reads from it.
    open_sockets: list[socket.socket] = []
    late = threading.Event()

    def work() -> None:
        try:
            connection.connect()
            open_sockets.append(connection.sock)
            if late.is_set():
                return
            connection.request(method, path, payload, {"Connection": "close", **headers})
            answer = connection.getresponse()
            text = answer.read(limit).decode("utf-8", "replace")
            names = {name.lower(): value for name, value in answer.getheaders()}
            found.append(Answer(answer.status, text, names))
        except (OSError, http.client.HTTPException, ValueError):
            return
        finally:
            connection.close()

    thread = threading.Thread(target=work, name="exchange", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return SILENCE
    thread.join(timeout)
    if found:
        return found[0]
    late.set()
    for one in open_sockets:
        shut(one)
    return SILENCE


def request(
    address: str, port: int, method: str, path: str, timeout: float, body: Any = None, key: str = ""
) -> tuple[int, str]:
    """One HTTP request to the server: (status, body), or (0, '') when no whole answer came in time."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    payload = None
    if body is not None:
        payload, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    answer = exchange(address, port, method, path, timeout, payload=payload, headers=headers)
    return answer.status, answer.text


def shut(connection: socket.socket) -> None:
    """End a connection that another thread waits for."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def accepts(address: str, port: int, timeout: float = 2.0) -> bool:
    """Whether something takes connections there; `timeout` in s."""
    try:
        with socket.create_connection((address, port), timeout):
            return True
    except OSError:
        return False


class HttpApi:
    """The head's server on this node."""

    def __init__(
        self, address: str, port: int, model: str, key: Callable[[], str], timeout: float = 5.0
    ) -> None:
        self._address, self._port, self._model, self._key = address, port, model, key
        self._timeout = timeout
        self._number = 0
        self._results: dict[int, bool] = {}

    def healthy(self) -> bool:
        """Whether /health returns 200."""
        return request(self._address, self._port, "GET", "/health", self._timeout)[0] == 200

    def metrics(self) -> Optional[Metrics]:
        """Running requests and processed tokens, over all engines of the server."""
        status, text = request(self._address, self._port, "GET", "/metrics", self._timeout)
        return read_metrics(text) if status == 200 else None

    def begin_probe(self, deadline: float) -> None:
        """Ask for one token in a thread; the deadline counts from now, whatever the socket does."""
        self._number += 1
        number = self._number
        self._results.clear()
        body = {"model": self._model, "prompt": "1", "max_tokens": 1, "temperature": 0}

        def work() -> None:
            status, text = request(
                self._address, self._port, "POST", "/v1/completions", deadline, body, self._key()
            )
            self._results.setdefault(number, is_answer(status, text))

        def over() -> None:
            self._results.setdefault(number, False)

        threading.Thread(target=work, name="probe", daemon=True).start()
        timer = threading.Timer(deadline, over)
        timer.daemon = True
        timer.start()

    def probe_result(self) -> Optional[bool]:
        """Of the last probe; None while it runs."""
        return self._results.get(self._number)


def is_answer(status: int, text: str) -> bool:
    """Whether a request for a token was answered: by a token, or by a server whose model has no completions.

    vLLM says 404 then, in older releases 400 or 501; nothing more can be known here of such a server. It also says 404
    of a name that is not served, and that does not count.
    """
    if status == 200:
        return '"choices"' in text
    if status == 404:
        return "does not exist" not in text
    return status in (405, 501) or (status == 400 and "does not support" in text)


def read_metrics(text: str) -> Metrics:
    """From Prometheus' text, summed over engines."""
    totals: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        totals[name] = totals.get(name, 0.0) + _number(value)
    names = ("vllm:num_requests_running", "vllm:generation_tokens_total", "vllm:kv_cache_usage_perc")
    return Metrics(*(totals.get(name, 0.0) for name in names))


def _number(text: str) -> float:
    """A sample's value; 0 for what is not a number."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def key_from(env_file: str) -> Callable[[], str]:
    """Reads VLLM_API_KEY from the release's environment file each time, because a release may bring a new one."""

    def read() -> str:
        try:
            lines = Path(env_file).read_text(encoding="utf-8").splitlines()
        except OSError:
            return ""
        return next((line.partition("=")[2] for line in lines if line.startswith("VLLM_API_KEY=")), "")

    return read


class Memory:
    """The report on disk, so that a watch that restarts, or a machine that boots, knows where it was.

    `patience` in s: a disk that hangs keeps nobody waiting for longer, and gets the reports when it answers again.
    """

    def __init__(self, path: str, patience: float = 1.0) -> None:
        self._path, self._patience = Path(path), patience
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="memory")

    def load(self) -> Optional[Report]:
        """What was saved; None when there is nothing that can be read."""
        try:
            return Report.from_json(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return None

    def save(self, report: Report) -> None:
        """Write the report, completely or not at all, even when the power goes. Raises OSError."""
        writing = self._writer.submit(self._write, json.dumps(report.as_json()))
        try:
            writing.result(self._patience)
        except FutureTimeout:
            raise OSError(errno.ETIMEDOUT, "the disk does not answer") from None

    def _write(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        new.replace(self._path)
