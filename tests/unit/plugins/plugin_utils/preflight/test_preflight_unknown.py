"""Preflight where a tool gives no answer, and where a name is taken by a container of somebody else."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import preflight


def test_l12_a_container_of_somebody_else_has_our_name(node, settings):
    node["container"] = {"running": False, "id": "c1", "release": None, "error": None}
    found = next(one for one in preflight(node, settings) if one.check == "container_name")
    assert (found.status, "docker rename dgx-vllm NAME" in found.remedy) == ("fail", True)


@pytest.mark.parametrize(
    ("part", "check"),
    [("service", "units"), ("watch", "units"), ("container", "container_name"), ("image", "docker")],
)
def test_m2_what_a_tool_does_not_tell_stops_with_its_name(node, settings, part, check):
    node.setdefault(part, {})["error"] = "no answer within 60 s"
    found = next(one for one in preflight(node, settings) if one.check == check)
    assert (found.status, "no answer within 60 s" in found.reason) == ("fail", True)
    assert "systemctl" in found.reason or "docker" in found.reason


@pytest.mark.parametrize(("restarts", "status"), [(True, "fail"), (False, "pass")])
def test_m2_unknown_containers_stop_only_a_restart_of_docker(node, settings, restarts, status):
    node["docker"]["containers_error"] = "docker gave no answer within 60 s"
    rows = preflight(node, {**settings, "docker_restarts": restarts})
    assert next(one for one in rows if one.check == "containers").status == status


def test_l12_the_container_of_a_unit_of_version_0_1_is_ours(node, settings):
    node["container"] = {"running": True, "id": "c1", "release": None, "error": None}
    node["service"] = {"exists": True, "active_state": "active"}
    found = next(one for one in preflight(node, settings) if one.check == "container_name")
    assert found.status == "pass"
