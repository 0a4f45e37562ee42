"""The health check on damaged answers of systemd, Docker, the container, the watch and the server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Reply
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import mask, read_log, split_runs
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Node, unit_of
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import read_full, read_probe
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.result import (
    evidence,
    full_result,
    probe_result,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain
from hypothesis import strategies as st

from helpers.fuzz import VALUES, damaged, damaged_text, fuzz

UNIT = (
    "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNRestarts=0\nInvocationID=ab12\n"
    "ExecMainStatus=0\nExecMainStartTimestampMonotonic=1000000\nInactiveExitTimestampMonotonic=1000000\nJob=0\n"
)
CONTAINER = [
    {
        "State": {"Running": True},
        "Image": "sha256:1",
        "Config": {
            "Env": ["VLLM_EXTRA_ARGS=--max-model-len 8192", "A=b"],
            "Cmd": ["serve", "--moe-backend", "auto", "--kernel-config", '{"moe_backend": "auto"}'],
            "Labels": {"dgx-vllm.release": "r1"},
        },
    }
]
RECORD = {
    "version": 1, "pid": 7, "born": 5, "process": "EngineCore", "switches": {"linear": "torch", "moe": "triton"},
    "decisions": [{"layer": "moe", "why": "routed", "chosen": "Triton", "detail": "", "count": 3}],
    "moe_configs": [{"file": "E=512,N=512,device_name=NVIDIA_GB10.json", "found": None}],
    "census": [
        {"part": "target", "kind": "moe", "method": "Fp8MoEMethod", "holds": ["Fp8MoeBackend.CUTLASS"],
         "experts": 512, "intermediate": 512, "count": 48}
    ],
    "errors": [],
}  # fmt: skip
MANIFEST = {
    "vllm": "0.29",
    "routes": [{"name": "moe", "state": "patched"}, {"name": "census", "state": "patched"}],
}
WATCH = {"phase": "ready", "desired": "up", "reason": "", "restarts": [1.0, 2.0]}
LOG = (
    "INFO [vLLM SM_121] FP8 MoE: Triton\nINFO Using default MoE config. E=512,N=512,device_name=NVIDIA_GB10.json\n"
    "Loading safetensors checkpoint shards: 50% Completed | 1/2\nERROR RuntimeError: CUDA out of memory\n"
    "Traceback (most recent call last):\n  File x\nValueError: password hf_abcdefghijklmnopqrstuvwxyz\n"
)
MODELS = {"data": [{"id": "m"}]}
ANSWER = {"usage": {"completion_tokens": 8}, "choices": [{"text": "Paris"}], "data": [{}]}
EVIDENCE = {
    "invocation_id": "ab12",
    "start_retained": True,
    "markers": {"moe": "x"},
    "config_loaded": ["/a/b.json"],
}


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Texts of each source; one or two of them are damaged."""

    def text(document: Any) -> str:
        return json.dumps(draw(damaged(document)))

    record = {"pid": 7, "born": 5, "text": text(RECORD)}
    inside = {"manifest": {"text": text(MANIFEST)}, "records": [record], "shipped": ["a"], "tuned": []}
    return {
        "unit": draw(st.one_of(st.just(UNIT), damaged_text(UNIT))),
        "container": draw(st.one_of(st.just(text(CONTAINER)), damaged_text(json.dumps(CONTAINER)))),
        "inside": draw(st.one_of(st.just(text(inside)), damaged_text(json.dumps(inside)))),
        "watch": draw(st.one_of(st.just(text(WATCH)), damaged_text("[" * 20000, json.dumps(WATCH)))),
        "log": draw(damaged_text(LOG, f'{"{"}"MESSAGE": "x"{"}"}\n')),
        "models": draw(st.one_of(st.just(text(MODELS)), damaged_text("[" * 20000, "{}"))),
        "answer": draw(st.one_of(st.just(text(ANSWER)), damaged_text("[" * 20000, "{}"))),
        "evidence": draw(damaged(EVIDENCE)),
    }


@fuzz("health, full and probe", worlds(), examples=150)
def test_every_answer_of_a_node_becomes_findings(world: dict[str, Any]) -> None:
    def run(argv: Sequence[str], _limit: float = 0) -> Completed:
        words = " ".join(argv)
        kind = (
            "container" if "inspect" in words else "inside" if "docker exec" in words
            else "unit" if "systemctl show" in words else "watch" if "watch.json" in words else "log"
        )  # fmt: skip
        return Completed(0, world[kind], "")

    def http(method: str, path: str, _timeout: float, _body: Any = None) -> Reply:
        body = "" if path == "/health" else world["models"] if method == "GET" else world["answer"]
        return Reply(200, body, 0.1, "")

    # The module's own argument check lets a dictionary through and nothing else.
    known = world["evidence"] if isinstance(world["evidence"], dict) else None
    for watch in ("", "/run/watch.json"):
        wanted = Wanted(watch=watch, evidence=known)
        node = Node(wanted.unit, wanted.container, run)
        reading = read_full(wanted, node, http)
        result = full_result(reading, wanted)
        assert all(row["status"] in ("pass", "warn", "fail", "skip") for row in result["checks"])
        json.dumps(evidence(reading, wanted))
        json.dumps(probe_result(read_probe(wanted, node, http), wanted))


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "18446744073709551616", "²", "1.2."])
def test_a_number_of_the_unit_that_systemd_cannot_have_is_zero(number: str) -> None:
    names = (
        "ExecMainStartTimestampMonotonic",
        "InactiveExitTimestampMonotonic",
        "NRestarts",
        "ExecMainStatus",
        "Job",
    )
    assert unit_of(dict.fromkeys(names, number), 10.0) == unit_of({}, 10.0)


@fuzz("watch's report and container, whole documents", VALUES, VALUES)
def test_a_document_of_another_kind_is_none(first: Any, second: Any) -> None:
    from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import (
        parse_container,
        parse_inside,
        parse_watch,
    )

    for document in (
        first,
        [first],
        {"Config": first, "phase": second, "restarts": first, "records": [second]},
    ):
        text = json.dumps(document)
        parse_watch(True, text).describe()
        assert parse_container(text).options is not None
        parse_container(json.dumps([{"State": first, "Config": second}]))
        parse_inside(text, "")


@fuzz("log: read, explained, split, masked", damaged_text(LOG))
def test_a_log_is_read_whatever_it_holds(text: str) -> None:
    read_log(text)
    explain(text)
    split_runs(text)
    mask(text, ["hf_abcdefghijklmnopqrstuvwxyz"])
