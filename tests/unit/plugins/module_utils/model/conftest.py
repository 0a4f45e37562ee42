"""A local hub with the interface of huggingface.co, and a docker client that downloads as `hf` would."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import TIMED_OUT, Completed

COMMIT = "c" * 40
MODEL = "org/tiny"


def git_sha1(data: bytes) -> str:
    """The id git gives a blob."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class Hub:
    """One model at one commit; tests change what the hub says."""

    def __init__(self) -> None:
        self.files = {"config.json": b"{}", "model.safetensors": b"w" * 5000}
        self.token = ""
        self.gated = False
        self.status = 200
        self.error_code = ""
        self.redirect = ""
        self.seen: list[tuple[str, str, str]] = []
        self.url = ""

    def listing(self) -> dict[str, Any]:
        """The answer to /api/models/ID/revision/REV?blobs=true."""
        siblings: list[dict[str, Any]] = []
        for name, data in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        return {"id": MODEL, "sha": COMMIT, "gated": "manual" if self.gated else False, "siblings": siblings}

    def answer(self, method: str, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for one request."""
        self.seen.append((method, path, authorization))
        parts = urllib.parse.urlsplit(path)
        if self.redirect:
            return 307, {"Location": self.redirect + path}, b""
        if "/org/renamed/" in parts.path:
            return 307, {"Location": path.replace("/org/renamed/", f"/{MODEL}/")}, b""
        if self.status != 200:
            return self.status, {"X-Error-Code": self.error_code} if self.error_code else {}, b""
        allowed = not self.token or authorization == f"Bearer {self.token}"
        if authorization and not allowed:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""
        name = parts.path.partition(f"/resolve/{COMMIT}/")[2]
        if method == "GET" and name in self.files and allowed:
            return 200, {}, self.files[name]
        if parts.path.startswith(f"/{MODEL}/resolve/"):
            return (200, {}, b"") if allowed else (403, {"X-Error-Code": "GatedRepo"}, b"")
        if not parts.path.startswith(f"/api/models/{MODEL}/revision/"):
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if parts.path.rsplit("/", 1)[1] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        return 200, {}, json.dumps(self.listing()).encode()


@contextmanager
def _running() -> Iterator[Hub]:
    local = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            del format, args

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            status, headers, body = local.answer(self.command, self.path, authorization)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    local.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield local
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub on a free loopback port."""
    with _running() as local:
        yield local


@pytest.fixture
def second_hub() -> Iterator[Hub]:
    """Another hub, on another port."""
    with _running() as local:
        yield local


class FakeDocker:
    """Takes docker's arguments; `docker run … hf download` fills the cache from the hub's files."""

    def __init__(self, hub: Hub, models: Path) -> None:
        self.hub = hub
        self.models = models
        self.calls: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.image_present = True
        self.failure = ""
        self.times_out = False
        self.spoil = 0
        self.shared = False
        self.hangs = False
        self.trickles = 0
        self.removed = threading.Event()

    def __call__(self, arguments: Sequence[str], environment: dict[str, str], timeout: float) -> Completed:
        """Answer one docker command."""
        self.calls.append(list(arguments))
        if arguments[0] == "image":
            return (
                Completed(0, "sha256:a", "") if self.image_present else Completed(1, "", "No such image: x")
            )
        if arguments[0] == "rm":
            if self.environments:
                self.removed.set()
            return Completed(0, "", "")
        self.environments.append(dict(environment))
        if self.times_out:
            return Completed(TIMED_OUT, "", "docker did not end")
        if self.failure:
            return Completed(1, "", self.failure)
        if self.hangs:
            assert self.removed.wait(20), "nobody stopped the download"
            return Completed(137, "", "killed")
        self.trickle()
        self.fill()
        return Completed(0, "/models/hub", "")

    def trickle(self) -> None:
        """Write slowly, as over a bad line."""
        part = self.models / "hub/models--org--tiny/blobs/part.incomplete"
        part.parent.mkdir(parents=True, exist_ok=True)
        for step in range(self.trickles):
            part.write_bytes(b"x" * 8192 * (step + 1))
            time.sleep(0.1)
        part.unlink(missing_ok=True)

    @property
    def runs(self) -> list[list[str]]:
        """The `docker run` commands."""
        return [call for call in self.calls if call[0] == "run"]

    def fill(self) -> None:
        """Put every absent file into the cache; a blob that is there is not looked at, as `hf` does."""
        folder = self.models / "hub" / "models--org--tiny"
        for name, data in self.hub.files.items():
            large = name.endswith(".safetensors")
            blob = folder / "blobs" / (hashlib.sha256(data).hexdigest() if large else git_sha1(data))
            blob.parent.mkdir(parents=True, exist_ok=True)
            if not blob.exists():
                content = b"x" * len(data) if self.spoil and large else data
                self.spoil -= bool(self.spoil and large)
                if self.shared and large:
                    store = self.models / "hub" / "blobs" / "ff" / ("f" * 64)
                    store.parent.mkdir(parents=True, exist_ok=True)
                    store.write_bytes(content)
                    blob.symlink_to(os.path.relpath(store, blob.parent))
                else:
                    blob.write_bytes(content)
            link = folder / "snapshots" / COMMIT / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(link):
                link.symlink_to(os.path.relpath(blob, link.parent))
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(COMMIT)


@pytest.fixture
def docker(hub: Hub, tmp_path: Path) -> FakeDocker:
    """A docker client whose container writes into tmp_path/models."""
    return FakeDocker(hub, tmp_path / "models")
