"""The parser qwen3 of a real vLLM (CPU build 0.32.0) and the answer of an Instruct model."""

from __future__ import annotations

import json

import pytest
from entrypoint import NO_THINKING

from helpers import images

pytestmark = [pytest.mark.testbed, pytest.mark.slow]


def parsed(kwargs: str) -> dict[str, str | None]:
    """What the parser makes of "Paris." when requests have these arguments of the chat template."""
    return images.result_of(images.vllm_cpu(), "true", f"parse_reasoning.py '{kwargs}'")


def test_without_the_argument_the_answer_is_lost_to_the_reader() -> None:
    """If this fails, vLLM has fixed vllm#53284, and the entry point need not add the argument."""
    assert parsed("{}") == {"reasoning": "Paris.", "content": None}


def test_what_the_entry_point_adds_makes_it_content() -> None:
    assert json.loads(NO_THINKING) == {"enable_thinking": False}
    assert parsed(NO_THINKING) == {"reasoning": None, "content": "Paris."}
