"""Fake registries, started for a test and stopped after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.fake_registry import FakeRegistry


@pytest.fixture
def serve() -> Iterator[Any]:
    started: list[FakeRegistry] = []

    def start(wrap: Any = None) -> FakeRegistry:
        registry = FakeRegistry()
        if wrap:
            registry.socket = wrap(registry.socket)
        threading.Thread(target=registry.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        started.append(registry)
        return registry

    yield start
    for registry in started:
        registry.stall.set()
        registry.shutdown()
        registry.server_close()


@pytest.fixture
def registry(serve: Any) -> FakeRegistry:
    found: FakeRegistry = serve()
    return found
