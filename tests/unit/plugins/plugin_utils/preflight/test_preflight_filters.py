"""The filters as Ansible calls them, and the table."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.filter.preflight import (
    FilterModule,
    preflight,
    preflight_table,
)


def test_rows_are_plain_data(node, settings):
    rows = preflight(node, settings)
    assert set(rows[0]) == {"where", "check", "status", "found", "reason", "remedy"}
    json.dumps(rows)


@pytest.mark.parametrize(("state", "given"), [("text", {}), ({}, [])])
def test_wrong_types_are_refused(state, given):
    with pytest.raises(AnsibleFilterError, match="preflight needs"):
        preflight(state, given)
    with pytest.raises(AnsibleFilterError, match="preflight_table needs"):
        preflight_table([])


def test_ansible_finds_all():
    assert set(FilterModule().filters()) == {
        "preflight",
        "preflight_drift",
        "preflight_fabric",
        "preflight_served_drift",
        "preflight_table",
    }


def test_a_passing_fleet_is_one_line_a_host(node, settings):
    rows = preflight(node, settings)
    assert preflight_table({"spark1": rows, "spark2": rows}).splitlines() == [
        "HOST    CHECK  STATUS  FOUND",
        "spark1  all    PASS    24 pass",
        "spark2  all    PASS    24 pass",
    ]


def test_findings_follow_with_reason_and_remedy_failures_last(node, settings):
    node["arch"] = "x86_64"
    node["time"]["synchronized"] = False
    lines = preflight_table({"spark1": preflight(node, settings)}).splitlines()
    assert lines[1].split() == ["spark1", "all", "FAIL", "22", "pass,", "1", "warn,", "1", "fail"]
    assert lines[2].split()[:3] == ["spark1", "time_sync", "WARN"]
    assert lines[5].split()[:4] == ["spark1", "architecture", "FAIL", "x86_64"]
    assert "a GB10 is aarch64" in lines[6]
    assert lines[7].strip() == "-> remove this host from the inventory group"


def test_hosts_with_the_same_finding_share_its_lines(node, settings):
    node["arch"] = "x86_64"
    rows = preflight(node, settings)
    table = preflight_table({"a": rows, "b": rows, "c": rows})
    assert table.count("architecture") == 1
    assert "a +2" in table
    assert "hosts: a, b, c" in table


def test_long_lines_wrap(node, settings):
    rows = preflight(node, {**settings, "accept": ["nope"]})
    assert max(map(len, preflight_table({"spark1": rows}, 90).splitlines())) <= 90


def test_no_host_at_all():
    assert preflight_table({}) == "HOST  CHECK  STATUS  FOUND"
