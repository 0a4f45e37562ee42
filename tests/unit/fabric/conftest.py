"""A bare machine for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import Machine


@pytest.fixture
def spark(tmp_path: Path) -> Machine:
    """A machine with a management interface and no adapter yet."""
    return Machine(tmp_path)
