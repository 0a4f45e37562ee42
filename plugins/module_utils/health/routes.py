"""The routes by which a server proves that it serves: the first one that it has is asked.

vLLM registers routes by what a model can do: a server of embeddings, of ranks or of speech has no completions. It
answers 404 then, in older releases 400 or 501 with "The model does not support … API".
"""

from __future__ import annotations

import io
import wave
from typing import Any, Callable, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Body, Reply, Upload

PROMPT = "The capital of France is"
_BOUNDARY = "dgx-vllm-health"


class Route(NamedTuple):
    """`body` makes a small request to a model, `proof` says what a good answer holds; "" if it holds nothing."""

    path: str
    body: Callable[[str], Body]
    proof: Callable[[dict[str, Any]], str]


def is_absent(reply: Reply) -> bool:
    """Whether the server answers that it does not have this route; 404 also says that a model has another name."""
    if reply.status == 404:
        return "does not exist" not in reply.body
    return reply.status in (405, 501) or (reply.status == 400 and "does not support" in reply.body)


def _completion(model: str) -> Body:
    return {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}


def _tokens(answer: dict[str, Any]) -> str:
    usage, choices = answer.get("usage"), answer.get("choices")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    if not isinstance(tokens, int) or tokens < 1:
        return ""
    first = choices[0] if isinstance(choices, list) and choices else None
    text = str(first.get("text", "")).strip() if isinstance(first, dict) else ""
    return f"{tokens} tokens: {text!r}"


def _input(model: str) -> Body:
    return {"model": model, "input": PROMPT}


def _ranking(model: str) -> Body:
    return {"model": model, "query": PROMPT, "documents": ["Paris", "a river"]}


def _transcription(model: str) -> Body:
    """Half a second of silence as a form with a file, which is how OpenAI's API takes speech."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(16000)
        stream.writeframes(bytes(16000))
    part = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name="
    head = f'{part}"model"\r\n\r\n{model}\r\n{part}"file"; filename="silence.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    content = head.encode() + sound.getvalue() + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Upload(content, f"multipart/form-data; boundary={_BOUNDARY}")


def _entries(key: str, what: str) -> Callable[[dict[str, Any]], str]:
    def proof(answer: dict[str, Any]) -> str:
        entries = answer.get(key)
        return f"{len(entries)} {what}" if isinstance(entries, list) and entries else ""

    return proof


def _transcript(answer: dict[str, Any]) -> str:
    return "a transcription" if isinstance(answer.get("text"), str) else ""


ROUTES = (
    Route("/v1/completions", _completion, _tokens),
    Route("/v1/embeddings", _input, _entries("data", "embedding")),
    Route("/v1/rerank", _ranking, _entries("results", "ranked documents")),
    Route("/classify", _input, _entries("data", "classification")),
    Route("/pooling", _input, _entries("data", "pooled output")),
    Route("/v1/audio/transcriptions", _transcription, _transcript),
)
