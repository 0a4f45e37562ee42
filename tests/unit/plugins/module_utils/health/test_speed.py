"""speed: rates out of a server's answers, and one sentence where there are none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Reply
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.speed import (
    Request,
    SpeedError,
    measure,
)

REQUEST = Request("m", (1, 8), 64, 5, 60.0)


class Server:
    """Answers every completion in half a second a prompt; keeps what it was asked."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, timeout: float, body: dict[str, Any] | None = None) -> Reply:
        assert (method, path, body is not None) == ("POST", "/v1/completions", True)
        assert body is not None
        self.bodies.append(body)
        done = len(body["prompt"]) * body["max_tokens"]
        answer = json.dumps({"usage": {"completion_tokens": done}})
        return Reply(self.status, answer, 0.5 * len(body["prompt"]), "")


def test_rates() -> None:
    server = Server()
    assert measure(server, REQUEST) == {"1": [128.0] * 5, "8": [128.0] * 5}
    assert len(server.bodies) == 12, "each batch is asked once more before it is timed"
    assert all(body["ignore_eos"] and body["min_tokens"] == 64 for body in server.bodies)
    prompts = [prompt for body in server.bodies for prompt in body["prompt"]]
    assert len(set(prompts)) > 40, "no run can be served from the cache of another one"


def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(
        SpeedError, match=r"no completion of 1 x 64 tokens \(status 503\): run playbooks/verify.yml"
    ):
        measure(Server(503), REQUEST)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.headers["Authorization"] == "Bearer key"
        answer = json.dumps({"usage": {"completion_tokens": len(body["prompt"])}}).encode()
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_module(port: int, run_module: Callable[..., dict[str, Any]]) -> None:
    result = run_module("dgx_vllm_speed", port=port, model="m", api_key="key", batches=[2], runs=3)
    assert list(result["rates"]) == ["2"] and len(result["rates"]["2"]) == 3 and not result["changed"]
    failed = run_module("dgx_vllm_speed", port=port, model="m", api_key="other", batches=[2], runs=3)
    assert failed["failed"] and "(status 401)" in failed["msg"]
