"""A server without completions is proven by the route that it has."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.examine import examine
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted


def full(node: Any, vllm: Any, **wanted: Any) -> dict[str, Any]:
    """Every check, against the fakes."""
    return examine("full", Wanted(host="", port=vllm.port, completion_timeout=2.0, **wanted), node)


def statuses(result: dict[str, Any]) -> dict[str, str]:
    """Check -> status."""
    return {row["check"]: row["status"] for row in result["checks"]}


ABSENT = (404, {"detail": "Not Found"})
NO_API = {"error": {"message": "The model does not support Completions API", "code": 400}}
OTHERS = {
    "embeddings": (
        {"/v1/embeddings": (200, {"data": [{"embedding": [0.1]}]})},
        "/v1/embeddings: 1 embedding",
    ),
    "rerank": ({"/v1/rerank": (200, {"results": [{"index": 0}, {"index": 1}]})}, "/v1/rerank: 2 ranked"),
    "classification": ({"/classify": (200, {"data": [{"label": "x"}]})}, "/classify: 1 classification"),
    "pooling": ({"/pooling": (200, {"data": [{"data": [[0.1]]}]})}, "/pooling: 1 pooled"),
    "speech": (
        {"/v1/audio/transcriptions": (200, {"text": ""})},
        "/v1/audio/transcriptions: a transcription",
    ),
}


@pytest.mark.parametrize("absent", [ABSENT, (400, NO_API), (501, NO_API), (405, {})], ids=str)
@pytest.mark.parametrize("kind", OTHERS)
def test_a_server_without_completions_is_proven_by_the_route_it_has(
    node: Any, vllm: Any, kind: str, absent: tuple[int, Any]
) -> None:
    routes, found = OTHERS[kind]
    vllm.behaviour.routes = {"/v1/completions": absent, **routes}
    result = full(node, vllm)
    row = result["checks"][-1]
    assert (row["check"], row["status"]) == ("completion", "pass")
    assert row["found"].startswith(found)
    assert result["healthy"]


def test_a_model_that_the_server_does_not_know_is_no_other_route(node: Any, vllm: Any) -> None:
    vllm.behaviour.routes = {"/v1/completions": (404, {"error": "The model `qwen` does not exist."})}
    row = full(node, vllm)["checks"][-1]
    assert (row["status"], "does not exist" in row["found"]) == ("fail", True)


def test_speech_is_sent_as_a_file(node: Any, vllm: Any) -> None:
    vllm.behaviour.routes = {"/v1/completions": ABSENT, **OTHERS["speech"][0]}
    full(node, vllm)
    _method, path, (content_type, data) = vllm.behaviour.requests[-1]
    assert path == "/v1/audio/transcriptions"
    assert content_type.startswith("multipart/form-data; boundary=")
    parts = data.split(b"--" + content_type.partition("=")[2].encode())
    assert b'name="model"\r\n\r\nqwen\r\n' in parts[1]
    assert b"RIFF" in parts[2] and b"WAVE" in parts[2]
    assert parts[3] == b"--\r\n"


def test_a_route_that_answers_nonsense_is_a_failure(node: Any, vllm: Any) -> None:
    vllm.behaviour.routes = {"/v1/completions": ABSENT, "/v1/embeddings": (200, {"data": []})}
    assert statuses(full(node, vllm))["completion"] == "fail"
    vllm.behaviour.routes["/v1/embeddings"] = (500, {"error": "engine dead"})
    assert "engine dead" in full(node, vllm)["checks"][-1]["found"]


def test_a_server_with_none_of_the_known_routes_is_unknown_and_not_unhealthy(node: Any, vllm: Any) -> None:
    vllm.behaviour.routes = {"/v1/completions": ABSENT}
    result = full(node, vllm)
    assert result["checks"][-1]["status"] == "warn"
    assert "/v1/audio/transcriptions" in result["checks"][-1]["found"]
    assert result["healthy"]
