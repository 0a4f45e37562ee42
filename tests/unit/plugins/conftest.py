"""A bare machine for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.machine import Machine


@pytest.fixture
def spark(tmp_path: Path) -> Machine:
    """A machine with a management interface and no adapter yet."""
    return Machine(tmp_path)
