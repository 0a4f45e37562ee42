"""R4, R5, class K: what a server's environment says of its start, of its log, and of Ray's memory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import replica as topology
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import vllm
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.node import node_server

from helpers.fleets import hosts, replica
from helpers.server_inputs import NODE, settings


def environment(**changes: Any) -> dict[str, str]:
    return dict(vllm.environment(settings(**changes), [], {}))


def test_r4_vllm_waits_for_its_engine_as_long_as_the_health_check_does() -> None:
    assert environment()["VLLM_ENGINE_READY_TIMEOUT_S"] == "1800"
    assert environment(health_timeout=5400)["VLLM_ENGINE_READY_TIMEOUT_S"] == "5400"


def test_r5_the_polled_endpoints_are_quiet() -> None:
    assert environment()["QUIET_ENDPOINTS"] == "/health,/metrics"


@pytest.mark.parametrize("name", ["VLLM_ENGINE_READY_TIMEOUT_S", "QUIET_ENDPOINTS"])
def test_the_operator_may_replace_them(name: str) -> None:
    pairs = vllm.environment(settings(extra_env={name: "x"}), [], {})
    assert [value for key, value in pairs if key == name] == ["x"]


@pytest.mark.parametrize(
    ("fleet", "by_ray"),
    [(replica(2, executor="ray"), True), (replica(2), False), (hosts(1, executor="ray"), False)],
)
def test_class_k_ray_starts_no_workers_ahead(fleet: Any, by_ray: bool) -> None:
    row = plan(fleet)["hosts"]["spark1"]
    rails = [
        {"interface": f"enp1s0f{number}np0", "rdma": f"rocep1s0f{number}", "rdma_port": 1} for number in range(2)
    ] if row["world_size"] > 1 else []  # fmt: skip
    found = dict(node_server(settings(executor="ray"), row, rails, {"lo": ["127.0.0.1/8"]}, NODE)["env"])
    assert ("RAY_enable_worker_prestart" in found) is by_ray
    assert found.get("RAY_prestart_worker_first_driver", "0") == "0"


def test_class_k_rays_object_store_is_one_gib() -> None:
    """By default Ray takes 30 % of the memory, which is the GPU's too."""
    for row in plan(replica(2, executor="ray"))["hosts"].values():
        assert "--object-store-memory=1073741824" in topology.ray_arguments(row)
