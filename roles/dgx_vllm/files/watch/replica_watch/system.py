"""The real surroundings of a watch: systemd and Docker, the peers' watches, the server's API, its state file."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Optional

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


def request(
    address: str, port: int, method: str, path: str, timeout: float, body: Any = None, key: str = ""
) -> tuple[int, str]:
    """One HTTP request: (status, body), or (0, '') when no answer came. `timeout` is for each wait on the socket."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    headers = {"Connection": "close", **({"Authorization": f"Bearer {key}"} if key else {})}
    payload = None
    if body is not None:
        payload, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        connection.request(method, path, payload, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BODY).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError):
        return 0, ""
    finally:
        connection.close()


def accepts(address: str, port: int, timeout: float = 2.0) -> bool:
    """Whether something takes connections there; `timeout` in s."""
    try:
        with socket.create_connection((address, port), timeout):
            return True
    except OSError:
        return False


class HttpPeers:
    """The reports of the peers' watches, asked all at once."""

    def __init__(self, peers: Mapping[str, str], port: int, timeout: float = 2.0) -> None:
        self._peers, self._port, self._timeout = dict(peers), port, timeout
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(self._peers)))

    def _ask(self, address: str) -> Optional[Report]:
        status, text = request(address, self._port, "GET", "/status", self._timeout)
        try:
            return Report.from_json(json.loads(text)) if status == 200 else None
        except ValueError:
            return None

    def __call__(self) -> Mapping[str, Optional[Report]]:
        return dict(zip(self._peers, self._pool.map(self._ask, self._peers.values())))


IP_FREEBIND = 15
"""Of Linux' <linux/in.h>; Python has no name for it. The rail may get its address after the watch starts."""


class StatusServer(ThreadingHTTPServer):
    """Listens on an address that the machine does not have yet, or has lost with the cable."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking whether the address is there."""
        self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        super().server_bind()


def serve_status(address: str, port: int, report: Callable[[], Report]) -> StatusServer:
    """Answer the peers from a thread, so that a slow check of this node's server keeps nobody waiting."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            known = self.path == "/status"
            body = json.dumps(report().as_json()).encode() if known else b""
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests of peers do not belong in the journal."""

    server = StatusServer((address, port), Handler)
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server


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
            self._results.setdefault(number, status == 200 and '"choices"' in text)

        def over() -> None:
            self._results.setdefault(number, False)

        threading.Thread(target=work, name="probe", daemon=True).start()
        timer = threading.Timer(deadline, over)
        timer.daemon = True
        timer.start()

    def probe_result(self) -> Optional[bool]:
        """Of the last probe; None while it runs."""
        return self._results.get(self._number)


def read_metrics(text: str) -> Metrics:
    """From Prometheus' text, summed over engines."""
    totals: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        totals[name] = totals.get(name, 0.0) + float(value)
    names = ("vllm:num_requests_running", "vllm:generation_tokens_total", "vllm:kv_cache_usage_perc")
    return Metrics(*(totals.get(name, 0.0) for name in names))


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
    """The report on disk, so that a watch that restarts, or a machine that boots, knows where it was."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def load(self) -> Optional[Report]:
        """What was saved; None when there is nothing that can be read."""
        try:
            return Report.from_json(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def save(self, report: Report) -> None:
        """Write the report, completely or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(report.as_json(), file)
        new.replace(self._path)
