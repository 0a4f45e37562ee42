"""Four kinds of models with real weights, each served by vLLM as it is and patched, without the role."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass

import pytest
from conftest import OUT, Step
from server import (
    build_image,
    complete,
    describe_gpu,
    log,
    markers,
    records,
    routed,
    start,
    told,
    wait_healthy,
)

from testlib.node import Node

PROMPTS = 12
TOKENS = 24
MEDIAN, MOST = 0.1, 1.5
"""What the log probabilities of two servers' first tokens may differ by: the median of the prompts, and any of them."""


@dataclass(frozen=True)
class Kind:
    """A kind of model, and what the patch must do with it where it takes the GPU for a GB10.

    `options` are those of `docker run` for both of its servers.
    """

    model: str
    routed: tuple[str, ...]
    has_experts: bool = True
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.model


KINDS = [
    Kind("fp8-channel", ("linear", "moe")),
    # Without it vLLM compiles DeepGEMM's kernels for block-scaled layers, and the image has no nvcc.
    Kind("fp8-block", ("moe",), options=("-e", "VLLM_USE_DEEP_GEMM=0")),
    Kind("bf16", ()),
    Kind("dense", ("linear",), has_experts=False),
]
PORTS = {f"{kind.model}-{side}": 8101 + 2 * number + offset for number, kind in enumerate(KINDS)
         for offset, side in enumerate(("stock", "patched"))}  # fmt: skip


def prompt(number: int) -> str:
    """Twelve words of the toy's vocabulary."""
    return " ".join(f"t{(number * 977 + place * 131) % 8000 + 2}" for place in range(12))


@pytest.mark.step("The image by docker build, without the role", needs=60)
def test_image(node: Node, step: Step) -> None:
    build_image(node)
    step.facts["size_gb"] = round(
        int(node.sh("docker image inspect -f '{{.Size}}' dgx-vllm:latest")) / 1e9, 2
    )


@pytest.mark.step("Eight servers at the same time", needs=200)
def test_start(node: Node, step: Step) -> None:
    describe_gpu(node)
    for kind in KINDS:
        for side, image in (("stock", os.environ["TRIAL_BASE"]), ("patched", "dgx-vllm:latest")):
            name = f"{kind.model}-{side}"
            start(node, name, PORTS[name], image, kind.model, *kind.options)
    try:
        step.facts["healthy_s"] = wait_healthy(node, PORTS, 300)
    finally:
        for name in PORTS:
            (OUT / "logs").mkdir(exist_ok=True)
            (OUT / "logs" / f"{name}.log").write_text(log(node, name)[-200_000:], encoding="utf-8")


@pytest.mark.step("Record, markers and MoE config", needs=10)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.model)
def test_routes(node: Node, step: Step, kind: Kind) -> None:
    text = log(node, f"{kind.model}-patched")
    assert markers(log(node, f"{kind.model}-stock")) == [], "stock vLLM must not print a marker"
    step.show(
        text, r"\[vLLM SM_121\]", "MoE backend", "MoE config", "Using configuration from", "Selected .*Kernel"
    )
    found = records(node, f"{kind.model}-patched")
    assert len(found) == 1, f"{len(found)} processes have a census"
    record = found[0]
    (OUT / f"record-{kind.model}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    step.facts.update(told(record))
    assert routed(record) == kind.routed
    assert tuple(sorted(markers(text))) == kind.routed
    assert record["errors"] == []
    assert bool(record["moe_configs"]) == kind.has_experts


@pytest.mark.step("Tokens of stock and patched", needs=20)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.model)
def test_tokens(node: Node, step: Step, kind: Kind) -> None:
    ports = [PORTS[f"{kind.model}-{side}"] for side in ("stock", "patched")]
    equal, apart = 0, []
    for number in range(PROMPTS):
        stock, patched = (complete(node, TOKENS, prompt(number), port, logprobs=5) for port in ports)
        equal += stock["text"] == patched["text"]
        first, other = stock["logprobs"]["top_logprobs"][0], patched["logprobs"]["top_logprobs"][0]
        apart += [abs(first[token] - other[token]) for token in first if token in other]
    assert apart, "the two have no likely token in common"
    step.facts["equal_completions"] = f"{equal} of {PROMPTS} x {TOKENS} tokens"
    step.facts["logprob_median"] = round(statistics.median(apart), 4)
    step.facts["logprob_most"] = round(max(apart), 4)
    assert statistics.median(apart) <= MEDIAN and max(apart) <= MOST


@pytest.mark.step("The servers stop", needs=20)
def test_stop(node: Node) -> None:
    node.sh(f"docker rm -f {' '.join(PORTS)}")
