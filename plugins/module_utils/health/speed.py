"""Tokens per second of a running server: a few timed completions for each number of prompts at a time."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Http


class SpeedError(Exception):
    """One sentence: what is wrong, where, and how to fix it."""


class Request(NamedTuple):
    """What to ask for; the module's parameters."""

    model: str
    batches: Sequence[int]
    tokens: int
    runs: int
    timeout: float


def rate(http: Http, request: Request, batch: int, run: int) -> float:
    """Generated tokens per second of one request with `batch` prompts, different ones in each run."""
    body: dict[str, Any] = {
        "model": request.model,
        "prompt": [f"Run {run}, prompt {number}. Count:" for number in range(batch)],
        "max_tokens": request.tokens,
        "min_tokens": request.tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    reply = http("POST", "/v1/completions", request.timeout, body)
    answer = reply.json()
    usage = answer.get("usage") if isinstance(answer, dict) else None
    done = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if reply.status != 200 or not isinstance(done, int) or done < 1:
        raise SpeedError(
            f"The server gave no completion of {batch} x {request.tokens} tokens"
            f" ({reply.error or f'status {reply.status}'}): run playbooks/verify.yml to see why, or allow more time"
            " with dgx_vllm_completion_timeout."
        )
    return done / max(reply.seconds, 1e-9)


def measure(http: Http, request: Request) -> dict[str, list[float]]:
    """Batch -> the rate of every run; one request of each batch before them is not counted."""
    rates: dict[str, list[float]] = {}
    for batch in request.batches:
        rate(http, request, batch, -1)
        rates[str(batch)] = [round(rate(http, request, batch, run), 2) for run in range(request.runs)]
    return rates
