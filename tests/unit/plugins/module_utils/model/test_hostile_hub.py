"""A hub that lies, breaks off or never ends: a sentence each time, and nothing of it goes further."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.cache import Cache
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.hub import HubError, list_files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.names import is_commit, is_file_name

COMMIT = "c" * 40
FILE = {"rfilename": "config.json", "size": 2, "blobId": "a" * 40}
LISTING: dict[str, Any] = {"sha": COMMIT, "siblings": [FILE]}
WRONG_NAMES = ("../x", "/etc/x", "a//b", "a\nb", "a\0b", "", "a/./b", 7)
INJECTED = "a/b\nPYTHONPATH=/models/hub/models--org--tiny/snapshots/a\nX=/y"


@pytest.fixture()
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a server that does one thing with each connection; gives its URL."""
    listening: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def work() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    with contextlib.suppress(OSError):
                        answer(connection)

        threading.Thread(target=work, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in listening:
        server.close()


def with_body(body: bytes) -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


@pytest.mark.parametrize(
    "change",
    [
        {"sha": INJECTED},
        {"sha": COMMIT + "\n"},
        {"sha": "main"},
        {"sha": None},
        {"sha": ["c" * 40]},
        {"siblings": None},
        {"siblings": {"a": 1}},
        {"siblings": ["config.json", 1]},
        *({"siblings": [{**FILE, "rfilename": name}]} for name in WRONG_NAMES),
        *({"siblings": [{**FILE, "size": size}]} for size in (-1, "2", None, True, 2.5)),
        {"siblings": [{"rfilename": "config.json", "size": 2}]},
        {"siblings": [{**FILE, "blobId": "short"}]},
        {"siblings": [{"rfilename": "w", "size": 2, "lfs": {"sha256": "x", "size": 2}}]},
    ],
)  # fmt: skip
def test_a_listing_that_is_none_stops_with_a_sentence(serve: Any, change: dict[str, Any]) -> None:
    url = serve(with_body(json.dumps({**LISTING, **change}).encode()))
    with pytest.raises(HubError, match="check that dgx_vllm_hf_endpoint is a model hub"):
        list_files(url, "org/tiny", "main", timeout=20)


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"7", b'"x"', b"{", b"[" * 200_000, b'{"sha": ' + b"{" * 200_000]
)
def test_an_answer_that_is_no_listing_stops_with_a_sentence(serve: Any, body: bytes) -> None:
    with pytest.raises(HubError, match="no readable listing"):
        list_files(serve(with_body(body)), "org/tiny", "main", timeout=20)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_is_no_http_is_a_hub_out_of_reach(serve: Any, answer: bytes) -> None:
    with pytest.raises(HubError, match="could not be reached") as error:
        list_files(serve(lambda connection: connection.sendall(answer)), "org/tiny", "main", timeout=20)
    assert error.value.unreachable


def test_a_hub_that_drips_has_one_deadline_for_all(serve: Any) -> None:
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not stop.wait(0.1):
            connection.sendall(b" ")

    begin = time.monotonic()
    with pytest.raises(HubError, match="no whole answer"):
        list_files(serve(drip), "org/tiny", "main", timeout=0.5)
    stop.set()
    assert time.monotonic() - begin < 60


def test_a_reference_that_is_no_commit_is_none(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), "org/tiny")
    reference = cache.folder / "refs" / "main"
    reference.parent.mkdir(parents=True)
    for text in (INJECTED, "main", "", COMMIT[:-1]):
        reference.write_text(text)
        assert cache.ref("main") == ""
    reference.write_text(COMMIT + "\n")
    assert cache.ref("main") == COMMIT


def test_names_have_a_grammar() -> None:
    assert is_commit(COMMIT) and not is_commit(COMMIT.upper()) and not is_commit(COMMIT + "\n")
    assert is_file_name("original/consolidated.00.pth") and is_file_name("model 1.safetensors")
    assert not any(map(is_file_name, ("..", "a/../b", "a\\b", "a\x1b", "a\u2028b", None)))
