"""Fixtures of the image's tests: the image's Python on the path, source trees of vLLM releases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import vllm_sources


def pytest_configure(config: pytest.Config) -> None:
    """Markers of this directory."""
    config.addinivalue_line("markers", "slow: takes more than a few seconds or fetches much")
    config.addinivalue_line("markers", "testbed: runs containers of the testbed's images")
    config.addinivalue_line("markers", "all_versions: every vLLM release that the patcher knows")


@pytest.fixture(scope="session")
def source() -> Callable[[str], Path]:
    """The cached files of a release; not to be changed."""
    fetch: Callable[[str], Path] = vllm_sources.fetch
    return fetch


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a release's files that the test may change."""

    def copy(version: str) -> Path:
        target = tmp_path / f"vllm-{version}"
        shutil.copytree(vllm_sources.fetch(version), target)
        return target

    return copy
