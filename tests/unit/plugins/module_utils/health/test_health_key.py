"""The key of a release that is older than today's: read on the node, from the release's own environment file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.examine import key_in

KEY = 'the "key" of #1 = long ago'


@pytest.fixture
def env_file(tmp_path: Path) -> str:
    file = tmp_path / "vllm.env"
    file.write_text(f"HOST=127.0.0.1\nVLLM_API_KEY={KEY}\nPORT=8000\n", encoding="utf-8")
    return str(file)


def test_key_in(env_file: str, tmp_path: Path) -> None:
    assert key_in(env_file) == KEY
    assert key_in(str(tmp_path / "no-such-file")) == key_in("") == ""


@pytest.mark.parametrize(("api_key", "status"), [("", "pass"), ("todays-key", "fail")])
def test_the_file_is_read_where_no_key_is_given(
    api_key: str, status: str, env_file: str, vllm: Any, run_module: Callable[..., dict[str, Any]]
) -> None:
    vllm.behaviour.key = KEY
    result = run_module(
        "dgx_vllm_health", port=vllm.port, mode="full", api_key=api_key, api_key_file=env_file
    )
    assert {row["status"] for row in result["checks"] if row["check"] == "models"} == {status}
    assert KEY not in json.dumps(result)
