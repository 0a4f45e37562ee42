"""The health of a replica's node: its watch decides what a unit that is down means, and only the head is asked."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.examine import examine
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted

MEMORY = "/var/lib/dgx-vllm/state/watch.json"


def check(mode: str, node: Any, port: int = 1, **wanted: Any) -> dict[str, Any]:
    given = {"host": "", "port": port, "completion_timeout": 2.0, "watch": MEMORY, **wanted}
    return examine(mode, Wanted(**given), node)


def full(node: Any, port: int = 1, **wanted: Any) -> dict[str, Any]:
    return check("full", node, port, **wanted)


def probe(node: Any, port: int = 1, **wanted: Any) -> dict[str, Any]:
    return check("probe", node, port, **wanted)


def row(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in result["checks"] if row["check"] == name)


def test_the_head_is_checked_and_its_watch_too(node: Any, vllm: Any) -> None:
    result = full(node, vllm.port)
    assert result["healthy"]
    assert row(result, "watch")["status"] == "pass"
    assert row(result, "completion")["status"] == "pass"


def test_a_worker_is_healthy_without_an_api(node: Any) -> None:
    node.log.pop()
    result = full(node, serves=False)
    assert result["healthy"], result["summary"]
    assert {row(result, name)["status"] for name in ("health", "models", "completion")} == {"skip"}
    assert {row(result, name)["status"] for name in ("markers", "moe_config_loaded")} == {"pass"}
    assert "the replica is ready" in result["summary"]


@pytest.mark.parametrize("phase", ["", "starting", "ending", "held"])
def test_nobody_is_ready_before_the_replica_is(node: Any, vllm: Any, phase: str) -> None:
    node.watch["phase"] = phase
    for serves in (True, False):
        result = probe(node, vllm.port, serves=serves)
        assert not result["ready"]
        assert not result["failed_unit"]


def test_a_unit_that_is_down_while_the_nodes_wait_has_not_failed(node: Any) -> None:
    node.unit.update(ActiveState="inactive", SubState="dead")
    node.watch.update(phase="held", reason="spark2 is gone (seen by spark1)")
    result = probe(node)
    assert not result["failed_unit"]
    assert result["phase"] == "restarting"


def test_a_watch_that_gave_up_is_a_failure_with_its_reason(node: Any) -> None:
    node.watch.update(phase="stopped", desired="down", reason="gave up after 4 failures within 60 minutes")
    result = probe(node)
    assert result["failed_unit"]
    assert "gave up after 4 failures" in result["summary"]


def test_a_restart_since_the_first_look_is_a_failure(node: Any) -> None:
    node.watch.update(phase="starting", restarts=[1.0])
    assert probe(node)["n_restarts"] == 1
    assert not probe(node, restarts_before=1)["failed_unit"]
    assert probe(node, restarts_before=0)["failed_unit"]


def test_a_replica_without_a_watch_is_not_healthy(node: Any, vllm: Any) -> None:
    node.watch_active = False
    result = full(node, vllm.port)
    assert not result["healthy"]
    assert "dgx-vllm-watch.service is not active" in row(result, "watch")["found"]


def test_a_ray_worker_has_its_lines_in_the_log_of_the_head(node: Any) -> None:
    node.container["Config"]["Cmd"] = ["ray", "start", "--block"]
    node.log = ["Local node IP: 198.51.100.2"]
    result = full(node, serves=False)
    assert result["healthy"], result["summary"]
    assert row(result, "markers")["status"] == "skip"
    assert {row(result, name)["status"] for name in ("record", "moe_config_file")} == {"pass"}
