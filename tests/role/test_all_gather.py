"""The all-gather's result, without torch: it is only imported when the script runs in the image."""

from __future__ import annotations

import pytest

from helpers import all_gather


def test_the_bandwidth_is_that_of_nccl_tests() -> None:
    module = all_gather.load()
    assert module.bus_gbytes(2 * 10**9, 2, 0.05) == pytest.approx(20.0)
    assert module.bus_gbytes(8 * 10**9, 8, 0.5) == pytest.approx(14.0)


def test_the_buffers_stay_small() -> None:
    """16 GiB have frozen a GB10 (reported by users): what is gathered and what is sent are far below that."""
    assert all_gather.load().SIZE <= 2 * 2**30
