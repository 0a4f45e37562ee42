"""Makes the watch, which is not part of the collection's plugins, and the fake world importable."""

from __future__ import annotations

import pytest

from helpers.fake_world import World


@pytest.fixture(params=[2, 4, 8])
def world(request: pytest.FixtureRequest) -> World:
    ready = World(request.param)
    ready.until_served()
    return ready
