"""A local HTTP server that answers like vLLM's, and can be made to hang, drip, be busy, or refuse a key."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Completed

from helpers.records import FILE, entry, fp8_moe, inside


class Behaviour:
    """What the double does; tests change it."""

    def __init__(self) -> None:
        self.health = 200
        self.models = ["qwen"]
        self.key = ""
        self.hang = ""
        self.drip = False
        self.tokens = 3
        self.completion_status = 200
        self.routes: dict[str, tuple[int, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.release = threading.Event()


def _handler(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            del format, args

        def answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode() if body is not None else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if behaviour.drip:
                for byte in data:
                    time.sleep(0.1)
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
            else:
                self.wfile.write(data)

        def serve(self, body: Any) -> None:
            behaviour.requests.append((self.command, self.path, body))
            if behaviour.hang and self.path.startswith(behaviour.hang):
                behaviour.release.wait(20)
                return None
            if self.path == "/health":
                return self.answer(behaviour.health, None)
            if behaviour.key and self.headers.get("Authorization") != f"Bearer {behaviour.key}":
                return self.answer(401, {"error": "Unauthorized"})
            if self.path == "/v1/models":
                return self.answer(
                    200, {"object": "list", "data": [{"id": name} for name in behaviour.models]}
                )
            if self.path in behaviour.routes:
                return self.answer(*behaviour.routes[self.path])
            if self.path == "/v1/completions":
                if behaviour.completion_status != 200:
                    return self.answer(behaviour.completion_status, {"error": {"message": "engine dead"}})
                usage = {"completion_tokens": behaviour.tokens}
                return self.answer(200, {"choices": [{"text": " Paris", "index": 0}], "usage": usage})
            return self.answer(404, {"detail": "Not Found"})

        def do_GET(self) -> None:
            self.serve(None)

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            is_json = self.headers["Content-Type"] == "application/json"
            self.serve(json.loads(data) if is_json else (self.headers["Content-Type"], data))

    return Handler


class Served:
    """The running double: its port and its behaviour."""

    def __init__(self, port: int, behaviour: Behaviour) -> None:
        self.port = port
        self.behaviour = behaviour


@pytest.fixture
def vllm() -> Iterator[Served]:
    """Run the double on a free loopback port."""
    behaviour = Behaviour()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(behaviour))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Served(server.server_address[1], behaviour)
    behaviour.release.set()
    server.shutdown()
    server.server_close()


LINEAR = "[vLLM SM_121] Detected GB10 (SM_121) - using torch backend for FP8 linear layers"
MOE = "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers"
IMAGE = "sha256:" + "a" * 64


class FakeNode:
    """Answers the commands of the check as a node with a healthy service does; tests change its parts."""

    def __init__(self, folder: Path) -> None:
        self.unit = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "Result": "success",
            "NRestarts": "0",
            "InvocationID": "run2",
            "ExecMainStatus": "0",
            "ExecMainStartTimestampMonotonic": "1000000",
        }
        self.log = [
            "INFO non-default args: {}",
            f"(EngineCore pid=9) {LINEAR}",
            f"(EngineCore pid=9) {MOE}",
            f"Using configuration from /c/{FILE} for MoE layer.",
            "INFO:     Application startup complete.",
        ]
        self.docker_log: list[str] = []
        self.journal: list[dict[str, Any]] = []
        self.container: dict[str, Any] = {
            "Image": IMAGE,
            "State": {"Running": True},
            "Config": {"Env": ["MODEL=org/model", "VLLM_EXTRA_ARGS="], "Cmd": ["serve"]},
        }
        self.record: dict[str, Any] = fp8_moe(folder).record()
        self.inside: Any = inside(entry(self.record))
        self.watch: dict[str, Any] = {"phase": "ready", "desired": "up", "reason": "", "restarts": []}
        self.watch_active = True
        self.commands: list[list[str]] = []

    def __call__(self, argv: Sequence[str], timeout: float) -> Completed:
        """Answer one command."""
        words = list(argv)
        self.commands.append(words)
        if words[0] == "sh":
            words = words[4:]
            lines = self.log if words[0] == "journalctl" else self.docker_log
            return Completed(0, "\n".join(lines), "")
        if words[:2] == ["systemctl", "is-active"]:
            return Completed(0, "active\n" if self.watch_active else "failed\n", "")
        if words[0] == "cat":
            return (
                Completed(0, json.dumps(self.watch), "") if self.watch else Completed(1, "", "no such file")
            )
        if words[0] == "systemctl":
            return Completed(0, "\n".join(f"{key}={value}" for key, value in self.unit.items()), "")
        if words[0] == "journalctl":
            return Completed(0, "\n".join(json.dumps(entry) for entry in self.journal), "")
        if words[:3] == ["docker", "container", "inspect"]:
            return Completed(0, json.dumps([self.container]), "") if self.container else _gone(words[-1])
        if isinstance(self.inside, str):
            return Completed(1, "", self.inside)
        return Completed(0, json.dumps(self.inside), "")


def _gone(name: str) -> Completed:
    return Completed(1, "[]", f"Error: No such container: {name}")


@pytest.fixture(autouse=True)
def no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder of a test writes into a folder of its own, and no switch is set."""
    for name in ("DGX_VLLM_FP8_LINEAR", "DGX_VLLM_FP8_MOE", "DGX_VLLM_ASSUME_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DGX_VLLM_RECORD_DIR", str(tmp_path / "records"))


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    """A node with a healthy service."""
    return FakeNode(tmp_path)
