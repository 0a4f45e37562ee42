"""The role's all_gather.py as a module, without torch, which it needs in the image only."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any
from unittest import mock

from helpers.ansible_run import ROOT

FILE = ROOT / "roles/dgx_vllm/files/all_gather.py"


def load() -> Any:
    """Execute the file with stand-ins for torch; its functions and constants."""
    torch = types.ModuleType("torch")
    torch.distributed = types.ModuleType("torch.distributed")  # type: ignore[attr-defined]
    names = {"torch": torch, "torch.distributed": torch.distributed}
    spec = importlib.util.spec_from_file_location("all_gather", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, names):
        spec.loader.exec_module(module)
    return module
