"""One deadline for a whole request: against a server that hangs, drips, refuses, or is not there."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import connect_host, make_http


def test_an_answer(vllm: Any) -> None:
    reply = make_http("127.0.0.1", vllm.port)("GET", "/v1/models", 5, None)
    assert reply.status == 200
    assert reply.json()["data"][0]["id"] == "qwen"
    assert reply.error == ""


def test_503(vllm: Any) -> None:
    vllm.behaviour.health = 503
    assert make_http("127.0.0.1", vllm.port)("GET", "/health", 5, None).status == 503


@pytest.mark.parametrize("way", ["hang", "drip"])
def test_a_server_that_hangs_or_drips_costs_no_more_than_the_deadline(vllm: Any, way: str) -> None:
    if way == "hang":
        vllm.behaviour.hang = "/v1/completions"
    else:
        vllm.behaviour.drip = True
    begun = time.monotonic()
    reply = make_http("127.0.0.1", vllm.port)("POST", "/v1/completions", 0.5, {"model": "qwen"})
    assert time.monotonic() - begun < 1.5
    assert (reply.status, reply.error) == (0, "no answer within 0.5 s")


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reply = make_http("127.0.0.1", port)("GET", "/health", 2, None)
    assert (reply.status, reply.error) == (0, "connection refused")


def test_the_key_is_sent(vllm: Any) -> None:
    vllm.behaviour.key = "sesame"
    assert make_http("127.0.0.1", vllm.port)("GET", "/v1/models", 5, None).status == 401
    assert make_http("127.0.0.1", vllm.port, "sesame")("GET", "/v1/models", 5, None).status == 200


@pytest.mark.parametrize(
    ("listens", "asked"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("::", "::1"),
        ("[::1]", "::1"),
        ("192.0.2.7", "192.0.2.7"),
    ],
)
def test_wildcard_addresses_are_asked_through_loopback(listens: str, asked: str) -> None:
    assert connect_host(listens) == asked
