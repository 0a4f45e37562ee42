"""The watch's port: its peers' watches are asked there and ask there, and readers that the inventory names.

Peers know each other by a secret of the replica. A question carries the asker's name, a nonce and their MAC; the
answer's MAC covers the answerer's name, the nonce and the report, so it fits this question and no other one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Optional

from replica_watch.model import Report
from replica_watch.system import exchange, shut

SECRET_FILE = "/etc/dgx-vllm/watch.secret"
ASKER, NONCE, MAC = "x-dgxvllm-host", "x-dgxvllm-nonce", "x-dgxvllm-mac"
MAX_REPORT = 64 * 1024
CONNECTIONS = 32
"""A peer needs one. When there are more, the oldest ends: a question takes milliseconds, and only a slow one is old."""
EXCHANGE = 10.0
"""Seconds that an asker has for its whole question and answer."""
AGAIN = 60.0
"""Seconds between two lines about the same thing."""

Say = Callable[[str], None]


class Reminder:
    """Says something about a subject at once, and again after a minute at the earliest."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, subject: str, text: str) -> None:
        with self._lock:
            now = self._clock()
            if now - self._said.get(subject, -AGAIN) < AGAIN:
                return
            self._said[subject] = now
        self._say(text)


class Secret:
    """The replica's secret on this node: a file with the replica's name and a word.

    Read each time, because a run of the role may bring or change it.
    """

    def __init__(self, path: str, say: Say) -> None:
        self._path, self._remind = Path(path), Reminder(say)

    def mac(self, *parts: str) -> str:
        """The MAC of `parts` in hexadecimal; '' while this node has no secret."""
        try:
            words = self._path.read_text(encoding="ascii").split()
            if len(words) != 2:
                raise ValueError("it does not hold the name of a replica and a word")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self._remind(
                "secret",
                f"cannot read {self._path} ({reason}): no peer's answer counts until site.yml has run for the replica",
            )
            return ""
        return hmac.new(words[1].encode(), "\0".join(parts).encode(), hashlib.sha256).hexdigest()

    def proves(self, mac: str, *parts: str) -> bool:
        """Whether `mac` is that of `parts`."""
        own = self.mac(*parts)
        return bool(own) and hmac.compare_digest(own.encode(), mac.encode("utf-8", "replace"))


class HttpPeers:
    """The reports of the peers' watches, asked all at once from `source`, the address that they know this node by."""

    def __init__(
        self,
        host: str,
        peers: Mapping[str, str],
        port: int,
        secret: Secret,
        say: Say,
        source: str = "",
        timeout: float = 2.0,
    ) -> None:
        self._host, self._peers, self._port, self._secret = host, dict(peers), port, secret
        self._source, self._timeout, self._remind = source, timeout, Reminder(say)
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(self._peers)))

    def _ask(self, peer: str) -> Optional[Report]:
        nonce = secrets.token_hex(16)
        mac = self._secret.mac("question", self._host, peer, nonce)
        answer = exchange(
            self._peers[peer],
            self._port,
            "GET",
            "/status",
            self._timeout,
            headers={ASKER: self._host, NONCE: nonce, MAC: mac},
            limit=MAX_REPORT,
            source=self._source,
        )
        if not answer.status or not mac:
            return None
        mistrust = self._mistrust(peer, nonce, answer.status, answer.text, answer.headers.get(MAC, ""))
        if mistrust:
            self._remind(
                peer, f"{mistrust}, so it counts as silent: run site.yml for all nodes of the replica"
            )
            return None
        try:
            report = Report.from_json(json.loads(answer.text))
        except (ValueError, RecursionError):
            return None
        return report if report.host == peer else None

    def _mistrust(self, peer: str, nonce: str, status: int, text: str, mac: str) -> str:
        """Why an answer does not count; '' if it does."""
        if status == 403:
            return f"{peer} does not know this node's secret of the replica"
        if not mac:
            return f"{peer} answers without the secret of the replica, as an older version of the watch does"
        if not self._secret.proves(mac, "answer", peer, nonce, text):
            return f"{peer} answers with another secret than this node's"
        return "" if status == 200 else f"{peer} answers with HTTP status {status}"

    def __call__(self) -> Mapping[str, Optional[Report]]:
        return dict(zip(self._peers, self._pool.map(self._ask, self._peers)))


IP_FREEBIND = 15
"""Of Linux' <linux/in.h>; Python has no name for it. The rail may get its address after the watch starts."""


class StatusServer(ThreadingHTTPServer):
    """Listens on an address that the machine does not have yet, or has lost with the cable.

    Others than `allowed` (addresses and networks) are not read. Bounded in connections and in time, nobody keeps the
    watch from its work or the peers from an answer.
    """

    daemon_threads = True
    request_queue_size = 1024

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], allowed: Iterable[str]
    ) -> None:
        self._allowed = [ipaddress.ip_network(one, strict=False) for one in allowed]
        self._free = threading.BoundedSemaphore(2 * CONNECTIONS)
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the asker's address may ask."""
        return any(ipaddress.ip_address(client_address[0]) in network for network in self._allowed)

    def service_actions(self) -> None:
        """End the connections that took too long, and the oldest of too many; called twice a second and after each."""
        now = time.monotonic()
        with self._lock:
            excess = len(self._open) - CONNECTIONS
            late = [
                one for place, (one, since) in enumerate(self._open.items())
                if place < excess or now - since > EXCHANGE
            ]  # fmt: skip
            for connection in late:
                del self._open[connection]
                shut(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread."""
        if not self._free.acquire(timeout=1.0):
            self.shutdown_request(request)
            return
        with self._lock:
            self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            self._done(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._done(request)

    def _done(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that broke off does not belong in the journal."""

    def server_bind(self) -> None:
        """Bind without asking whether the address is there."""
        self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        super().server_bind()


def serve_status(
    host: str,
    address: str,
    port: int,
    report: Callable[[], Report],
    peers: Mapping[str, str],
    readers: Iterable[str],
    secret: Secret,
    say: Say,
) -> StatusServer:
    """Answer peers and readers from threads, so that a slow check of this node's server keeps nobody waiting."""
    remind = Reminder(say)
    reading = [ipaddress.ip_network(one, strict=False) for one in readers]

    class Handler(BaseHTTPRequestHandler):
        timeout = 5
        server_version, sys_version = "dgx-vllm-watch", ""

        def do_GET(self) -> None:
            asker, nonce = self.headers.get(ASKER, ""), self.headers.get(NONCE, "")
            given = self.headers.get(MAC, "")
            is_peer = asker in peers and secret.proves(given, "question", asker, host, nonce)
            caller = ipaddress.ip_address(self.client_address[0])
            if self.path != "/status":
                self._answer(404)
            elif is_peer:
                text = json.dumps(report().as_json())
                self._answer(200, text, secret.mac("answer", host, nonce, text))
            elif any(caller in network for network in reading):
                self._answer(200, json.dumps(report().as_json()))
            else:
                remind("question", f"{caller} asked without the secret of the replica and got no answer")
                self._answer(403)

        def _answer(self, status: int, text: str = "", mac: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.send_header("Content-Type", "application/json")
            if mac:
                self.send_header(MAC, mac)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Requests of peers do not belong in the journal."""

    server = StatusServer((address, port), Handler, [*peers.values(), *readers])
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
