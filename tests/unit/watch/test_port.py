"""M4: who is answered at the watch's port, and whose answer counts."""

from __future__ import annotations

import http.client
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from replica_watch.model import Report
from replica_watch.port import ASKER, MAC, NONCE, HttpPeers, Reminder, Secret, serve_status
from replica_watch.system import exchange

from helpers.watch_port import WORD, Port, secret_of


def asked(port: Port, path: str = "/status", **headers: str) -> tuple[int, str]:
    """A question with headers of one's own choice: status and body."""
    answer = exchange("127.0.0.1", port.number, "GET", path, 20.0, headers=headers)
    return answer.status, answer.text


def question(
    secret: Secret, asker: str = "spark1", host: str = "spark2", nonce: str = "ab" * 16
) -> dict[str, str]:
    return {ASKER: asker, NONCE: nonce, MAC: secret.mac("question", asker, host, nonce)}


def test_a_peer_with_the_secret_is_answered(port: Port) -> None:
    assert port.peers()() == {"spark2": port.report}
    assert port.said == []


def test_nobody_answers(port: Port) -> None:
    port.close()
    assert port.peers()() == {"spark2": None}
    assert port.said == []


def test_a_question_without_the_secret_gets_no_answer(port: Port, tmp_path: Path) -> None:
    other = secret_of(tmp_path, "0" * 48)
    right = question(port.secret)
    for headers in (
        {},
        {MAC: right[MAC]},
        {**right, NONCE: "cd" * 16},
        {**right, ASKER: "spark3"},
        {**right, MAC: right[MAC][:-1] + "é"},
        question(other),
        question(port.secret, asker="spark3"),
        question(port.secret, host="spark1"),
    ):
        assert asked(port, **headers) == (403, ""), headers
    assert asked(port, **right)[0] == 200
    assert asked(port, "/", **right) == (404, "")
    assert port.said == ["127.0.0.1 asked without the secret of the replica and got no answer"], (
        "once a minute"
    )


def test_another_address_is_not_even_read(tmp_path: Path) -> None:
    port = Port(tmp_path, peer="198.51.100.1")
    try:
        assert asked(port, **question(port.secret)) == (0, "")
    finally:
        port.close()


@pytest.mark.parametrize("reader", ["127.0.0.1", "127.0.0.0/24"])
def test_a_reader_is_answered_and_gets_no_mac(reader: str, tmp_path: Path) -> None:
    port = Port(tmp_path, readers=(reader,), peer="198.51.100.1")
    try:
        answer = exchange("127.0.0.1", port.number, "GET", "/status", 20.0, headers={NONCE: "ab" * 16})
        assert Report.from_json(json.loads(answer.text)) == port.report
        assert MAC not in answer.headers
    finally:
        port.close()


def test_the_role_refuses_the_secret_to_nobody_but_itself(port: Port, tmp_path: Path) -> None:
    port.secret._path.unlink()
    assert asked(port, **question(secret_of(tmp_path))) == (403, "")
    assert port.peers(secret_of(tmp_path))() == {"spark2": None}


class Answers(ThreadingHTTPServer):
    """A peer that answers what and how it likes."""

    def __init__(self, text: str, mac: Any = None, status: int = 200) -> None:
        self.text, self.mac, self.status = text, mac, status
        super().__init__(("127.0.0.1", 0), AnswersHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def heard_by(self, secret: Secret, said: list[str]) -> dict[str, Report | None]:
        """What a watch of spark1 makes of it, at two looks."""
        peers = HttpPeers(
            "spark1", {"spark2": "127.0.0.1"}, int(self.server_address[1]), secret, said.append, timeout=20.0
        )
        first = peers()
        assert peers() == first
        self.shutdown()
        self.server_close()
        return dict(first)


class AnswersHandler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        body = self.server.text.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        if self.server.mac:
            self.send_header(MAC, self.server.mac(self.headers[NONCE], self.server.text))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


GOOD = json.dumps(Report("spark2", 3, "up", "ready").as_json())
REMEDY = ", so it counts as silent: run site.yml for all nodes of the replica"


def test_a_right_answer_counts(tmp_path: Path) -> None:
    secret, said = secret_of(tmp_path), []
    mac = lambda nonce, text: secret.mac("answer", "spark2", nonce, text)  # noqa: E731
    assert Answers(GOOD, mac).heard_by(secret, said) == {"spark2": Report("spark2", 3, "up", "ready")}
    assert said == []


@pytest.mark.parametrize("wrong", ["secret", "host", "replayed", "changed", "question"])
def test_an_answer_with_a_wrong_mac_counts_as_none(wrong: str, tmp_path: Path) -> None:
    secret, said = secret_of(tmp_path / "a"), []
    others = secret_of(tmp_path / "b", "0" * 48)
    macs = {
        "secret": lambda nonce, text: others.mac("answer", "spark2", nonce, text),
        "host": lambda nonce, text: secret.mac("answer", "spark3", nonce, text),
        "replayed": lambda _, text: secret.mac("answer", "spark2", "ab" * 16, text),
        "changed": lambda nonce, text: secret.mac("answer", "spark2", nonce, text + " "),
        "question": lambda nonce, _: secret.mac("question", "spark1", "spark2", nonce),
    }
    assert Answers(GOOD, macs[wrong]).heard_by(secret, said) == {"spark2": None}
    assert said == [f"spark2 answers with another secret than this node's{REMEDY}"], "once a minute"


def test_an_older_watch_counts_as_silent_and_is_named(tmp_path: Path) -> None:
    said: list[str] = []
    assert Answers(GOOD).heard_by(secret_of(tmp_path), said) == {"spark2": None}
    text = "spark2 answers without the secret of the replica, as an older version of the watch does"
    assert said == [text + REMEDY]


def test_a_watch_that_refuses_is_named(port: Port, tmp_path: Path) -> None:
    assert port.peers(secret_of(tmp_path, "0" * 48))() == {"spark2": None}
    assert f"spark2 does not know this node's secret of the replica{REMEDY}" in port.said


@pytest.mark.parametrize("text", [None, "", "one", "a b c", "\0" * 64, "chat é"])
def test_a_node_without_a_secret_says_so_once_and_neither_asks_nor_answers(
    text: str | None, port: Port, tmp_path: Path
) -> None:
    file, said = tmp_path / "watch.secret", []
    if text is not None:
        file.write_text(text, encoding="utf-8")
    secret = Secret(str(file), said.append)
    peers = port.peers(secret)
    assert peers() == peers() == {"spark2": None}
    assert not secret.proves("", "x")
    (line,) = said
    assert re.match(
        rf"cannot read {file} \(.+\): no peer's answer counts until site.yml has run for the replica", line
    )


def test_a_new_secret_counts_at_once(port: Port) -> None:
    port.secret._path.write_text("chat other\n", encoding="utf-8")
    assert port.peers()() == {"spark2": port.report}


def test_no_line_shows_the_secret(port: Port, tmp_path: Path) -> None:
    port.peers(secret_of(tmp_path, "0" * 48))()
    asked(port)
    assert port.said
    assert WORD not in "".join(port.said)


def test_it_is_said_again_after_a_minute() -> None:
    said: list[str] = []
    now = [0.0]
    remind = Reminder(said.append, lambda: now[0])
    for now[0] in (0.0, 30.0, 59.0, 61.0, 70.0):
        remind("a", "x")
    remind("b", "y")
    assert said == ["x", "x", "y"]


def test_the_port_may_listen_on_an_address_that_comes_later(tmp_path: Path) -> None:
    status = serve_status(
        "spark1", "198.51.100.1", 0, lambda: Report("spark1"), {}, (), secret_of(tmp_path), print
    )
    status.shutdown()
    status.server_close()


def test_an_asker_without_its_own_address_is_silent(port: Port) -> None:
    """The rail is down: nothing goes out over another network instead."""
    assert port.peers(source="198.51.100.1")() == {"spark2": None}


def test_a_browser_gets_nothing_to_read(port: Port) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port.number, timeout=20)
    connection.request("GET", "/status")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (403, b"")
    assert answer.getheader("Server", "").strip() == "dgx-vllm-watch"
    connection.close()
