"""Makes the watch, which is not part of the collection's plugins, and the fake world importable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.fake_world import World
from helpers.watch_port import Port


@pytest.fixture(params=[2, 4, 8])
def world(request: pytest.FixtureRequest) -> World:
    ready = World(request.param)
    ready.until_served()
    return ready


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    """The port of spark2's watch, which spark1 asks from loopback."""
    one = Port(tmp_path / "spark2")
    yield one
    one.close()
