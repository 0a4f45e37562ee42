"""Makes `ansible_collections.dgx_vllm.spark` importable from the checkout, without installing anything.

`.collections/ansible_collections/dgx_vllm/spark` is a link to the root of the checkout. The name is put into
sys.modules by hand because the `ansible` bundle of PyPI brings a regular package `ansible_collections`, which
Python would prefer to our namespace directory wherever it stands on sys.path; its collections stay reachable.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / ".collections"


def _namespace(name: str, places: list[Path]) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(place) for place in places if place.is_dir()]
    sys.modules[name] = module


def expose() -> None:
    """Put the checkout's collection first; called here, and by a process that a test starts."""
    if str(COLLECTIONS) in sys.path:
        sys.path.remove(str(COLLECTIONS))
    sys.path.insert(0, str(COLLECTIONS))
    _namespace("ansible_collections", [Path(entry) / "ansible_collections" for entry in sys.path if entry])


expose()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the whole suite."""
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/role/golden/ again instead of comparing"
    )


_PROGRAM = """
import importlib, json, runpy, sys
runpy.run_path(sys.argv[1])
module = importlib.import_module("ansible_collections.dgx_vllm.spark.plugins.modules." + sys.argv[2])
arguments = json.load(sys.stdin)
try:
    from ansible.module_utils.testing import patch_module_args
except ImportError:  # core 2.18
    from ansible.module_utils import basic
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    module.main()
else:
    with patch_module_args(arguments):
        module.main()
"""


@pytest.fixture
def run_module() -> Callable[..., dict[str, Any]]:
    """Run a module of the collection in a process of its own, as Ansible does, and return its result."""

    def run(name: str, **arguments: Any) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, __file__, name],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(result, dict)
        return result

    return run
