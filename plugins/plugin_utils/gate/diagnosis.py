"""The fabric gate's findings: facts of all nodes and what was measured between them, compared with plan and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding, failed, warned
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.history import figures, slower
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import limits_from
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.links import link_findings
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nccl import nccl_findings
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import Facts, drift, node_findings


def diagnose(
    planned: Mapping[str, Any],
    facts: Mapping[str, Facts],
    measured: Mapping[str, Any],
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """Findings of every replica of more than one node.

    `planned` is the topology, `facts` what dgx_vllm_fabric returned by host, `thresholds` the limits of each
    replica that differ from the known ones. `measured` has `pings` (from, to, rail, to_rail, the keys of parse_ping,
    plain_ok, peer_mac), `bandwidth` (from, to, rail, to_rail, the keys of parse_write_bw) and `nccl` (replica -> the
    keys of parse_nccl); without the key `pings` only the nodes are checked. `busy` names the nodes of a replica whose
    server runs, so that no bandwidth was measured; `history` has its previous runs (history.previous_runs).
    """
    found: list[Finding] = []
    for name, replica in planned["replicas"].items():
        if replica["size"] < 2:
            continue
        limits = limits_from((thresholds or {}).get(name, {}))
        present = {host: facts[host] for host in replica["hosts"] if host in facts}
        for host in replica["hosts"]:
            if host in present:
                found += node_findings(host, present[host], planned["hosts"][host], limits)
            else:
                found.append(_not_read(host))
        found += drift(name, present)
        busy = (measured.get("busy") or {}).get(name) or []
        if "pings" in measured:
            limits_now = {**limits, "rdma": limits["rdma"] and not busy}
            found += link_findings(present, replica["links"], measured, limits_now)
        if busy:
            found.append(_next_to_server(name, busy))
        found += nccl_findings(name, present, (measured.get("nccl") or {}).get(name), limits)
        runs = (measured.get("history") or {}).get(name) or []
        found += slower(name, runs, figures(name, measured, replica["hosts"]))
    return found


def _not_read(host: str) -> Finding:
    return failed(
        host,
        "rails",
        "not read",
        "the fabric of this node was not read",
        "fix what stopped this host, then run again",
    )


def _next_to_server(name: str, busy: Sequence[str]) -> Finding:
    return warned(
        name,
        "bandwidth",
        "not measured",
        f"the server runs on {', '.join(busy)}, and measuring would take bandwidth from it",
        "stop the replica's servers first, or run playbooks/fabric.yml with -e dgx_vllm_fabric_beside_server=true",
    )


def of_replica(findings: Sequence[Finding], planned: Mapping[str, Any], replica: str) -> list[Finding]:
    """The findings about a replica, its nodes and its links; a link is named after its first node.

    A finding about a place that no replica has is every replica's: it must not get lost.
    """
    everybody = {name for name, entry in planned["replicas"].items() for name in (name, *entry["hosts"])}
    others = everybody - {replica, *planned["replicas"][replica]["hosts"]}
    return [finding for finding in findings if finding.where.partition(" ")[0] not in others]
