"""The all-gather's figure, without torch: it is only imported when the script runs in the image."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "roles/dgx_vllm/files/all_gather.py"


def test_the_figure_is_that_of_nccl_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = types.ModuleType("torch")
    torch.distributed = types.ModuleType("torch.distributed")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.distributed", torch.distributed)
    spec = importlib.util.spec_from_file_location("all_gather", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.bus_gbytes(2 * 10**9, 2, 0.05) == pytest.approx(20.0)
    assert module.bus_gbytes(8 * 10**9, 8, 0.5) == pytest.approx(14.0)
