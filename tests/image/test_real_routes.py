"""Servers without completions (vLLM CPU 0.32.0 as released, tiny models): the check finds the route that they have."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.endpoints import endpoint_checks
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import make_http
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import request_all

from helpers import images

pytestmark = [pytest.mark.testbed, pytest.mark.slow]
HUB = images.SIM.parent / "hub" / "model.py"
SERVE = (
    "sed -i 's/^Version: .*/&+cpu/' /opt/venv/lib/python3.11/site-packages/vllm-*.dist-info/METADATA && "
    "exec vllm serve /model --served-model-name m --runner pooling --load-format dummy --dtype bfloat16"
    " --enforce-eager --max-model-len 256 --max-num-seqs 2 --host 0.0.0.0 "
)
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "2",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Wanted]:
    """A server of a tiny dense model with these options."""
    subprocess.run([sys.executable, str(HUB), str(tmp_path)], check=True)
    name = f"dgx-vllm-routes-{uuid.uuid4().hex[:8]}"
    options = [word for item in ENVIRONMENT.items() for word in ("--env", "=".join(item))]
    mount = f"--volume={tmp_path}/testbed/dense-bf16/main:/model:ro"
    image = images.vllm_cpu()
    images.docker("run", "-d", "--rm", "--name", name, "--shm-size=1g", mount, *options, "--entrypoint", "sh", image,
                  "-c", SERVE + request.param)  # fmt: skip
    try:
        address = images.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name).stdout.strip()
        wanted = Wanted(host=address, model="m", completion_timeout=100)
        http = make_http(address, wanted.port)
        deadline = time.monotonic() + 400
        while http("GET", "/health", 5.0, None).status != 200:
            log = images.docker("logs", name, check=False)
            assert time.monotonic() < deadline and log.returncode == 0, log.stderr[-3000:]
            time.sleep(2)
        yield wanted
    finally:
        images.docker("rm", "-f", name, check=False)


@pytest.mark.parametrize(
    ("server", "found"),
    [("", "/v1/embeddings: 1 embedding"), ("--convert classify", "/classify: 1 classification")],
    ids=["embeddings", "classification"],
    indirect=["server"],
)
def test_a_real_server_without_completions_is_proven(server: Wanted, found: str) -> None:
    http = make_http(server.host, server.port)
    rows = {row.check: row for row in endpoint_checks(request_all(server, http), server)}
    assert {row.status for row in rows.values()} == {"pass"}, rows
    assert rows["completion"].found.startswith(found)
