"""The watch's real surroundings: sockets on loopback, a file, and a systemctl that answers from a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import ServerError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.watch import WATCH_LIMITS, configuration
from replica_watch.model import Metrics, Report, Settings, Unit
from replica_watch.system import (
    HttpApi,
    Memory,
    SystemdUnits,
    is_answer,
    key_from,
    read_metrics,
    run,
)

from helpers.server_inputs import NODE, settings

METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+03
vllm:generation_tokens_created{engine="0"} 1.7e+09
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
"""


class Server(ThreadingHTTPServer):
    """A vLLM that answers, or hangs."""

    hang = threading.Event()
    seen: list[tuple[str, str | None]]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        self.hang = threading.Event()
        self.port = int(self.server_address[1])
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is part of the test."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self, text: str) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        self.answer(METRICS if self.path == "/metrics" else "")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.hang.is_set():
            time.sleep(3)
        self.answer('{"choices": [{"text": "2"}]}')

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.shutdown()


def probed(api: HttpApi, deadline: float) -> tuple[bool | None, float]:
    begun = time.monotonic()
    api.begin_probe(deadline)
    assert api.probe_result() in (None, True, False)
    while api.probe_result() is None and time.monotonic() - begun < 10:
        time.sleep(0.02)
    return api.probe_result(), time.monotonic() - begun


def test_a_server_that_serves(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "vllm.env"
    file.write_text("MODEL=m\nVLLM_API_KEY=a=b\n", encoding="utf-8")
    api = HttpApi("127.0.0.1", server.port, "m", key_from(str(file)))
    assert api.healthy()
    metrics = api.metrics()
    assert metrics is not None
    assert metrics == Metrics(2.0, 1500.0, 0.25)
    assert probed(api, 5)[0] is True
    assert server.seen[-1] == ("/v1/completions", "Bearer a=b")


@pytest.mark.parametrize(
    ("status", "text", "answered"),
    [
        (200, '{"choices": []}', True),
        (200, "{}", False),
        (404, '{"detail": "Not Found"}', True),
        (404, "The model `m` does not exist.", False),
        (501, "The model does not support Completions API", True),
        (400, "The model does not support Completions API", True),
        (400, "bad request", False),
        (401, "", False),
        (500, "engine dead", False),
        (503, "", False),
        (0, "", False),
    ],
)
def test_a_model_without_completions_is_no_fault(status: int, text: str, answered: bool) -> None:
    """An embedding model: the route is not there, which is no reason to restart its replica."""
    assert is_answer(status, text) is answered


def test_a_server_that_hangs_is_given_up_at_the_deadline(server: Server) -> None:
    server.hang.set()
    api = HttpApi("127.0.0.1", server.port, "m", lambda: "")
    result, seconds = probed(api, 0.3)
    assert result is False
    assert seconds < 2


def test_no_server_at_all() -> None:
    api = HttpApi("127.0.0.1", 1, "m", key_from("/nonexistent"))
    assert (api.healthy(), api.metrics(), probed(api, 5)[0]) == (False, None, False)


def test_metrics_without_ours() -> None:
    assert read_metrics("process_open_fds 9\n") == (read_metrics("")) == Metrics(0.0, 0.0, 0.0)


def test_memory_is_whole_private_and_forgiving(tmp_path: Path) -> None:
    memory = Memory(str(tmp_path / "state/watch.json"))
    assert memory.load() is None
    report = Report("spark1", 7)
    memory.save(report)
    assert memory.load() == report
    assert (tmp_path / "state/watch.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "state/watch.json").write_text("{", encoding="utf-8")
    assert memory.load() is None


class Recorder:
    def __init__(self, text: str = "", code: int = 0) -> None:
        self.text, self.code = text, code
        self.seen: list[list[str]] = []

    def __call__(self, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        self.seen.append(list(argv))
        return self.code, self.text


def test_the_unit_as_systemd_shows_it() -> None:
    shown = "ActiveState=failed\nInvocationID=ab\nExecMainStatus=137\nMainPID=0\nResult=exit-code\n"
    assert SystemdUnits("u", "c", Recorder(shown)).show() == Unit("failed", "ab", 137, 0, "exit-code")
    moments = "ActiveExitTimestampMonotonic={}\nExecMainExitTimestampMonotonic={}\n"
    for left, ended, ordered in ((5, 7, True), (7, 7, False), (9, 7, False), (0, 7, False), (0, 0, False)):
        unit = SystemdUnits("u", "c", Recorder(shown + moments.format(left, ended))).show()
        assert unit.ordered == ordered
    later = f"ExecMainStartTimestampMonotonic=6\n{moments.format(5, 7)}"
    assert not SystemdUnits("u", "c", Recorder(shown + later)).show().ordered, "left active in the run before"
    assert SystemdUnits("u", "c", Recorder("", 127)).show() == Unit("unknown")


@pytest.mark.parametrize(
    ("result", "ordered", "not_started"), [("success", True, True), ("exit-code", False, True)]
)
def test_an_end_before_the_server_was_started(result: str, ordered: bool, not_started: bool) -> None:
    """B3: the unit waits before it starts the server; a stop then is a stop, and a wait in vain is no crash."""
    shown = f"ActiveState=inactive\nInvocationID=ab\nExecMainStatus=0\nMainPID=0\nResult={result}\n"
    unit = SystemdUnits("u", "c", Recorder(f"{shown}ExecMainStartTimestampMonotonic=0\n")).show()
    assert (unit.ordered, unit.not_started) == (ordered, not_started)


def test_the_order_to_stop_comes_before_the_kill() -> None:
    recorder = Recorder()
    SystemdUnits("u", "c", recorder).stop(hard=True)
    assert [words[:2] for words in recorder.seen] == [["systemctl", "stop"], ["docker", "kill"]]
    recorder.seen.clear()
    SystemdUnits("u", "c", recorder).stop(hard=False)
    assert len(recorder.seen) == 1


def test_a_command_that_is_missing_or_slow_is_no_exception() -> None:
    assert run(["/nonexistent"], 1)[0] == 127
    assert run(["sleep", "5"], 0.1)[0] == 127


def test_the_role_gives_only_limits_that_the_watch_knows() -> None:
    assert set(WATCH_LIMITS) <= {field.name for field in fields(Settings)}
    row = plan({"spark1": {}})["hosts"]["spark1"]
    with pytest.raises(ServerError, match="dgx_vllm_watch_limits has stal; known are peer_grace"):
        configuration(settings(watch_limits={"stal": 1}), row, NODE)
