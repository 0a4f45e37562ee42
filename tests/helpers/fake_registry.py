"""A registry on loopback that speaks the distribution API, with the logins real ones ask for."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MANIFEST = b'{"schemaVersion": 2, "manifests": []}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
USER, PASSWORD, TOKEN = "robot", "s3cret", "short-lived"


class FakeRegistry(ThreadingHTTPServer):
    """`login` is none, basic or bearer; the other attributes make it misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login = "none"
        self.private = True
        self.send_digest = True
        self.list_tags = True
        self.status = 0
        self.body = MANIFEST
        self.redirect = ""
        self.realm = ""
        self.stall = threading.Event()
        self.stall.set()
        self.seen: list[tuple[str, str, str]] = []
        self.accepted = ""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeRegistry

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _basic_fits(self) -> bool:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return self.headers.get("Authorization") == wanted

    def do_GET(self) -> None:
        registry, target = self.server, urlsplit(self.path)
        registry.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        registry.accepted = self.headers.get("Accept", registry.accepted)
        registry.stall.wait(5)
        if target.path == "/token":
            return self._token(parse_qs(target.query))
        if registry.login == "basic" and not self._basic_fits():
            return self._send(401, Www_Authenticate='Basic realm="a registry"')
        if registry.login == "bearer" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            realm = registry.realm or f"http://{registry.host}/token"
            return self._send(401, Www_Authenticate=f'Bearer realm="{realm}",service="the service"')
        if registry.status:
            return self._send(registry.status, Retry_After="30")
        if registry.redirect:
            return self._send(307, Location=registry.redirect + self.path)
        if target.path == "/v2/team/image/tags/list" and registry.list_tags:
            tags = ["0.26.0", "0.32.0", "0.33.0", "a", "b", "c"]
            return self._send(200, json.dumps({"tags": tags}).encode())
        if target.path in ("/v2/team/image/manifests/0.33.0", f"/v2/team/image/manifests/{DIGEST}"):
            extra = {"Docker_Content_Digest": DIGEST} if registry.send_digest else {}
            return self._send(200, registry.body, **extra)
        return self._send(404)

    do_HEAD = do_GET

    def _token(self, query: dict[str, list[str]]) -> None:
        assert query == {"scope": ["repository:team/image:pull"], "service": ["the service"]}
        if self.server.private and not self._basic_fits():
            return self._send(401)
        return self._send(200, json.dumps({"token": TOKEN}).encode())
