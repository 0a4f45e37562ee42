"""HTTP requests to the local server, each with one deadline for everything: connecting, sending, reading.

A hung vLLM accepts connections and never answers, and the timeout of a socket starts again with every byte.
Therefore the request runs in a thread of its own; after the deadline it is abandoned and its connection closed.
No proxy is used: the server is on this node.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any, Callable, NamedTuple, Union

from ansible_collections.dgx_vllm.spark.plugins.module_utils.deadline import within

MAX_BODY = 4 * 1024 * 1024


class Reply(NamedTuple):
    """A reply, or why there is none: then `status` is 0. `seconds` is the time it took."""

    status: int
    body: str
    seconds: float
    error: str

    def json(self) -> Any:
        """The body as JSON; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Upload(NamedTuple):
    """A body that is not JSON."""

    content: bytes
    content_type: str


Body = Union[dict[str, Any], Upload, None]
Http = Callable[[str, str, float, Body], Reply]
"""(method, path, timeout in seconds, body: JSON, an upload or none) -> Reply. Tests pass a fake."""


def connect_host(host: str) -> str:
    """The address to connect to for a server that listens on `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host.strip("[]"))


def make_http(host: str, port: int, api_key: str = "") -> Http:
    """A function that sends one request to host:port, with the API key if there is one."""
    target = connect_host(host)

    def request(method: str, path: str, timeout: float, body: Body = None) -> Reply:
        connection = http.client.HTTPConnection(target, port, timeout=timeout)
        begun = time.monotonic()

        def ask() -> Reply:
            headers = {"Accept": "application/json", "Connection": "close"}
            if api_key:
                headers["Authorization"] = f"Bearer {api_key}"
            payload = None
            if body is not None:
                upload = (
                    body
                    if isinstance(body, Upload)
                    else Upload(json.dumps(body).encode(), "application/json")
                )
                payload, headers["Content-Type"] = upload
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            text = response.read(MAX_BODY).decode("utf-8", "replace")
            return Reply(response.status, text, time.monotonic() - begun, "")

        try:
            return within(timeout, ask)
        except (OSError, http.client.HTTPException, ValueError) as error:
            _abort(connection)
            return Reply(0, "", time.monotonic() - begun, _reason(error, timeout))

    return request


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, (socket.timeout, TimeoutError)):
        return f"no answer within {timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer"
    return str(error) or type(error).__name__


def _abort(connection: http.client.HTTPConnection) -> None:
    """Close the connection under a request that still waits, so that the server stops working on it."""
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
