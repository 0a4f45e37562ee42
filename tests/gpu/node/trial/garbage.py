#!/usr/bin/env python3
"""A `vllm serve` that says it is well and completes every prompt with something that is no completion."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def value(flag: str, default: str) -> str:
    """What the command line gives to a flag."""
    words = sys.argv[1:]
    return words[words.index(flag) + 1] if flag in words else default


class Garbage(BaseHTTPRequestHandler):
    """Healthy, with the right model, and useless."""

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(json.dumps({"object": "list", "data": [{"id": "toy", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(b"<html>garbage</html>")


print("Application startup complete.", flush=True)
ThreadingHTTPServer((value("--host", "127.0.0.1"), int(value("--port", "8000"))), Garbage).serve_forever()
