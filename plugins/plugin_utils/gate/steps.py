"""The steps of the gate over the hosts' variables: plan the tests, collect results after each of them, evaluate all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import sentence, table
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import tests
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.diagnosis import diagnose, of_replica
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.history import previous_runs, runs_to_keep
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.hostvars import (
    HostVars,
    read_nodes,
    read_requests,
    read_results,
    variable,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nccl import gathered

SHOWN = ("jumbo_ping", "bandwidth", "port_bandwidth", "nccl")
"""Checks whose findings are in the table even if they passed: what was measured."""

Gate = Mapping[str, Any]
"""Keys: `plan` (the topology of the measured replicas alone), `replicas` (their names), `limits` and `busy` (by
replica), `rounds` (how many), `tests` (host -> pings, serve, write), `gathers` (replicas that run the all-gather) and
`measured` (`pings` and `bandwidth`)."""


def plan_gate(
    planned: Mapping[str, Any],
    hostvars: HostVars,
    hosts: Sequence[str],
    named: Sequence[str],
    always: bool = False,
) -> dict[str, Any]:
    """Which replicas are measured, and who measures what with whom.

    `hosts` are those that this run still has, `named` all that it started with; `always` measures replicas that serve.
    """
    nodes, requests = read_nodes(hostvars, hosts), read_requests(hostvars, planned)
    serving = [host for host, node in nodes.items() if node.serves]
    recabled = [host for host, node in nodes.items() if node.recabled]
    accepted = [name for name, request in requests.items() if request.beside_server]
    names = tests.to_measure(planned, named, serving, recabled, always)
    facts = {host: node.fabric for host, node in nodes.items() if node.fabric}
    thresholds = {name: requests[name].thresholds for name in names}
    gate = tests.gate_plan(planned, facts, names, tests.busy(planned, serving, accepted), thresholds)
    return {
        **gate,
        # Hosts without a place in the plan (state absent) take part in the tasks too.
        "tests": {**{host: _nothing(gate["rounds"]) for host in named}, **gate["tests"]},
        "gathers": [
            name
            for name in gate["gathers"]
            if requests[name].nccl and all(nodes[host].image for host in planned["replicas"][name]["hosts"])
        ],
        "measured": {"pings": [], "bandwidth": []},
    }


def _nothing(rounds: int) -> dict[str, Any]:
    """The tests of a host that measures nothing."""
    return {"pings": [], "serve": [[] for _ in range(rounds)], "write": [[] for _ in range(rounds)]}


def collect(
    gate: Gate, hostvars: HostVars, hosts: Sequence[str], registered: Sequence[str]
) -> dict[str, Any]:
    """The gate with the hosts' results, without the tests that can no longer succeed.

    `registered` names the variables that hold what dgx_vllm_fabric_probe returned.
    """
    results = read_results(hostvars, hosts, registered)
    measured = {
        name: [*gate["measured"][name], *(one for result in results for one in result.get(name) or [])]
        for name in ("pings", "bandwidth")
    }
    return {**tests.passable(gate, measured["pings"], hosts), "measured": measured}


def evaluate(
    gate: Gate, hostvars: HostVars, hosts: Sequence[str], files: Sequence[Mapping[str, Any]], time: str
) -> dict[str, Any]:
    """`findings`, their `table`, `failures` (replica -> a sentence each), `measured`, and `history` by replica.

    `files` is what slurp found of previous runs, `time` when this one was.
    """
    planned = gate["plan"]
    facts = {host: node.fabric for host, node in read_nodes(hostvars, hosts).items() if node.fabric}
    all_gathers = {host: variable(hostvars, host, "__dgx_vllm_gathered") for host in hosts}
    measured = {
        **gate["measured"],
        "busy": gate["busy"],
        "nccl": gathered(planned, all_gathers),
        "history": previous_runs(files, gate["replicas"]),
    }
    findings = diagnose(planned, facts, measured, gate["limits"])
    failed = [finding for finding in findings if finding.status == "fail"]
    return {
        "findings": [finding._asdict() for finding in findings],
        "table": table(findings, shown=SHOWN),
        "failures": {
            name: [sentence(finding) for finding in of_replica(failed, planned, name)]
            for name in gate["replicas"]
        },
        "measured": measured,
        "history": runs_to_keep(planned, measured, time),
    }
