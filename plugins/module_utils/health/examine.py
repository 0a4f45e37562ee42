"""The health of a served model on one node: `probe` while it loads, `full` once it answers.

Healthy means a served token, not an active unit: vLLM's /health stays 200 while requests hang (seen with two nodes
whose link was cut), and it says nothing of a route or a tuned config that is not in effect.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import make_http
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Node, TimedRunner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import read_full, read_probe
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.result import full_result, probe_result
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text


def examine(mode: str, wanted: Wanted, runner: TimedRunner = run) -> dict[str, Any]:
    """Run one health check on this node; `mode` is probe or full."""
    begun = time.monotonic()
    node = Node(wanted.unit, wanted.container, runner)
    http = make_http(wanted.host, wanted.port, wanted.api_key)
    if mode == "full":
        result = full_result(read_full(wanted, node, http), wanted)
    else:
        result = probe_result(read_probe(wanted, node, http), wanted)
    result["took_ms"] = int((time.monotonic() - begun) * 1000)
    return result


def key_in(env_file: str) -> str:
    """VLLM_API_KEY of a release's environment file, as Docker reads it; "" if there is none."""
    lines = read_text(Path(env_file)).splitlines() if env_file else []
    return next((line.partition("=")[2] for line in lines if line.startswith("VLLM_API_KEY=")), "")
