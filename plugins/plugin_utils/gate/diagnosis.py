"""The fabric gate's verdict: facts of all nodes and what was measured between them, as one list of findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.history import figures, slower
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import limits_from
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.links import link_findings, nccl_findings
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import (
    Facts,
    Finding,
    drift,
    node_findings,
)


def diagnose(
    planned: Mapping[str, Any],
    facts: Mapping[str, Facts],
    measured: Mapping[str, Any],
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """Findings of every replica of more than one node.

    `planned` is the topology, `facts` what dgx_vllm_fabric returned by host, `thresholds` the limits of each
    replica that differ from the known ones. `measured` has `pings` (from, to, rail,
    to_rail, the keys of parse_ping, plain_ok, peer_mac), `bandwidth` (from, to, rail, to_rail, the keys of
    parse_write_bw) and `nccl` (replica -> the keys of parse_nccl); without the key `pings` only the nodes are judged.
    `busy` names the nodes of a replica whose server runs, so that no bandwidth was measured; `history` has its runs
    before (fabric_history).
    """
    found: list[Finding] = []
    for name, replica in planned["replicas"].items():
        if replica["size"] < 2:
            continue
        limits = limits_from((thresholds or {}).get(name, {}))
        present = {host: facts[host] for host in replica["hosts"] if host in facts}
        for host in replica["hosts"]:
            if host not in present:
                found.append(
                    Finding(
                        host,
                        "rails",
                        "fail",
                        "not read",
                        "nothing is known of this node's fabric",
                        "mend what stopped this host, then run again",
                    )
                )
            else:
                found += node_findings(host, present[host], planned["hosts"][host], limits)
        found += drift(name, present)
        busy = (measured.get("busy") or {}).get(name) or []
        if "pings" in measured:
            links: Sequence[Mapping[str, Any]] = replica["links"]
            found += link_findings(present, links, measured, {**limits, "rdma": limits["rdma"] and not busy})
        if busy:
            found.append(_beside_server(name, busy))
        found += nccl_findings(name, present, (measured.get("nccl") or {}).get(name), limits)
        runs = (measured.get("history") or {}).get(name) or []
        found += slower(name, runs, figures(name, measured, replica["hosts"]))
    return found


def _beside_server(name: str, busy: Sequence[str]) -> Finding:
    return Finding(
        name,
        "bandwidth",
        "warn",
        "not measured",
        f"the server runs on {', '.join(busy)}, and measuring would take bandwidth from it",
        "stop the replica's servers first, or run playbooks/fabric.yml with -e dgx_vllm_fabric_beside_server=true",
    )


def verdict(findings: Sequence[Finding]) -> str:
    """fail, warn or pass: the worst of all."""
    statuses = {finding.status for finding in findings}
    return next((status for status in ("fail", "warn") if status in statuses), "pass")
