"""A node in a temporary directory, and a runner that answers from a table."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, Completed


class FakeRunner:
    """Answers a command by the longest known beginning of its words; everything else is not installed."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, ...], Completed] = {}
        self.seen: list[tuple[str, ...]] = []
        self._lock = threading.Lock()

    def on(self, *words: str, stdout: str = "", stderr: str = "", rc: int = 0) -> None:
        self.answers[words] = Completed(rc, stdout, stderr)

    def on_json(self, *words: str, answer: Any) -> None:
        self.on(*words, stdout=json.dumps(answer) + "\n")

    def __call__(self, argv: Sequence[str]) -> Completed:
        words = tuple(argv)
        with self._lock:
            self.seen.append(words)
        for length in range(len(words), 0, -1):
            if words[:length] in self.answers:
                return self.answers[words[:length]]
        return Completed(MISSING, "", f"{words[0]} is not installed")


Writer = Callable[[str, str], Path]


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def put(path: str, text: str) -> Path:
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return place

    return put
