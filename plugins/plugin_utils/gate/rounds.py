"""In which round each pair is tested: no node twice in a round, all replicas at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional


def round_robin(hosts: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Every pair once, in n - 1 rounds for an even number of hosts, n for an odd one (the circle method)."""
    ring: list[Optional[str]] = list(hosts)
    if len(ring) % 2:
        ring.append(None)
    rounds = []
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        facing = zip(ring[:half], reversed(ring[half:]), strict=True)
        rounds.append([(a, b) for a, b in facing if a is not None and b is not None])
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def ring_rounds(hosts: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Every two neighbours once: two rounds for an even ring, three for an odd one."""
    size = len(hosts)
    if size < 3:
        return round_robin(hosts)
    edges = [(hosts[at], hosts[(at + 1) % size]) for at in range(size)]
    if size % 2:
        return [edges[0:-1:2], edges[1:-1:2], edges[-1:]]
    return [edges[0::2], edges[1::2]]


def schedule(replicas: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rounds of tests for the entries of the topology: {a, b, rails: [[a_rail, b_rail], …]} each.

    Replicas share no node, so round number k of all of them runs at the same time.
    """
    merged: list[list[dict[str, Any]]] = []
    for replica in replicas:
        hosts = [str(host) for host in replica["hosts"]]
        if len(hosts) < 2:
            continue
        pairs = ring_rounds(hosts) if replica["kind"] == "ring" else round_robin(hosts)
        for number, pairs_of_round in enumerate(pairs):
            while len(merged) <= number:
                merged.append([])
            merged[number] += [
                {"replica": replica["name"], "a": a, "b": b, "rails": _rails(replica["links"], a, b)}
                for a, b in pairs_of_round
            ]
    return merged


def _rails(links: Sequence[Mapping[str, Any]], a: str, b: str) -> list[list[int]]:
    found = [[int(link["a_rail"]), int(link["b_rail"])] for link in links if (link["a"], link["b"]) == (a, b)]
    found += [
        [int(link["b_rail"]), int(link["a_rail"])] for link in links if (link["a"], link["b"]) == (b, a)
    ]
    return sorted(found)
