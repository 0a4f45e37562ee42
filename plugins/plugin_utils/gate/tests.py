"""Who measures what with whom, from the topology and the facts of all nodes: every node's pings, servers and rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import limits_from
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import linked, rail_devices
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.rounds import schedule

Facts = Mapping[str, Any]

FIRST_PORT = 18515
"""perftest's default; the servers of a node count up from it."""


def gate_plan(
    planned: Mapping[str, Any],
    facts: Mapping[str, Facts],
    replicas: Sequence[str],
    busy: Mapping[str, Sequence[str]] | None = None,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The gate's `plan`, `replicas`, `limits`, `busy`, `rounds`, `tests` and `gathers` (see steps.Gate).

    `serve` and `write` hold one list per round. Only pings are sent in a replica named in `busy` (with the nodes whose
    server runs), and in one whose `thresholds` turn rdma off. A rail that a node lacks is not measured: the diagnosis
    reports it. `gathers` names the replicas whose rails all have a link and that are not busy.
    """
    chosen = {
        name: entry for name, entry in planned["replicas"].items() if name in replicas and entry["size"] > 1
    }
    rows = {host: planned["hosts"][host] for entry in chosen.values() for host in entry["hosts"]}
    tests: dict[str, dict[str, Any]] = {
        host: {"pings": [], "serve": [], "write": []} for host in planned["hosts"]
    }
    for entry in chosen.values():
        for link in entry["links"]:
            ends = ((link["a"], link["a_rail"]), (link["b"], link["b_rail"]))
            for (host, rail), (peer, to_rail) in (ends, ends[::-1]):
                tests[host]["pings"] += _test(rows, facts, host, rail, peer, to_rail)
    free = {name: entry for name, entry in chosen.items() if name not in (busy or {})}
    limits = {name: limits_from((thresholds or {}).get(name, {})) for name in chosen}
    rdma = [entry for name, entry in free.items() if limits[name]["rdma"]]
    rounds, ports = schedule(rdma), dict.fromkeys(rows, FIRST_PORT)
    for number, pairs in enumerate(rounds):
        for test in tests.values():
            test["serve"].append([])
            test["write"].append([])
        for pair in pairs:
            for a_rail, b_rail in pair["rails"]:
                client = _test(rows, facts, pair["b"], b_rail, pair["a"], a_rail)
                server = _test(rows, facts, pair["a"], a_rail, pair["b"], b_rail)
                if client and server:
                    port = ports[pair["a"]]
                    ports[pair["a"]] += 1
                    tests[pair["a"]]["serve"][number].append({**server[0], "port": port})
                    tests[pair["b"]]["write"][number].append({**client[0], "port": port})
    return {
        "plan": {"hosts": rows, "replicas": chosen, "mistakes": []},
        "replicas": list(chosen),
        "limits": limits,
        "busy": {name: hosts for name, hosts in (busy or {}).items() if name in chosen},
        "rounds": len(rounds),
        "tests": tests,
        "gathers": [
            name
            for name, entry in free.items()
            if all(host in facts and _whole(facts[host], rows[host]) for host in entry["hosts"])
        ],
    }


def _whole(facts: Facts, row: Mapping[str, Any]) -> bool:
    return list(linked(facts)) == [rail["rail"] for rail in row["rails"]]


def _ends(test: Mapping[str, Any]) -> frozenset[tuple[str, int]]:
    return frozenset(((test["from"], test["rail"]), (test["to"], test["to_rail"])))


def passable(
    gate: Mapping[str, Any], pings: Sequence[Mapping[str, Any]], hosts: Sequence[str]
) -> dict[str, Any]:
    """The gate without bandwidth tests and all-gathers that would only wait.

    Those are the ones that use a link whose ping failed, or, for an all-gather, a node that is not in `hosts`.
    """
    bad = {_ends(ping) for ping in pings if not ping["ok"]}
    unreached = {host for ends in bad for host, _ in ends}
    able = set(hosts) - unreached

    def kept(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Mapping[str, Any]]]:
        return [[test for test in tests if _ends(test) not in bad] for tests in rounds]

    return {
        **gate,
        "tests": {
            host: {**test, "serve": kept(test["serve"]), "write": kept(test["write"])}
            for host, test in gate["tests"].items()
        },
        "gathers": [name for name in gate["gathers"] if set(gate["plan"]["replicas"][name]["hosts"]) <= able],
    }


def _test(
    rows: Mapping[str, Any], facts: Mapping[str, Facts], host: str, rail: int, peer: str, to_rail: int
) -> list[dict[str, Any]]:
    """What `host` has to know to reach `peer`; [] if it has no such rail."""
    devices = rail_devices(facts[host]) if host in facts else {}
    if rail not in devices:
        return []
    return [
        {
            "from": host,
            "to": peer,
            "rail": rail,
            "to_rail": to_rail,
            "interface": devices[rail]["interface"],
            "rdma": devices[rail]["rdma"],
            "rdma_port": 1,
            "address": rows[host]["rails"][rail]["address"].partition("/")[0],
            "peer": rows[peer]["rails"][to_rail]["address"].partition("/")[0],
        }
    ]


def to_measure(
    planned: Mapping[str, Any],
    present: Sequence[str],
    serving: Sequence[str],
    changed: Sequence[str],
    always: bool = False,
) -> list[str]:
    """Replicas of more than one node, all `present`, with a node that does not serve or whose fabric `changed`.

    `always` measures those that serve too.
    """
    return [
        name
        for name, entry in planned["replicas"].items()
        if entry["size"] > 1
        and set(entry["hosts"]) <= set(present)
        and (always or not set(entry["hosts"]) <= set(serving) or set(entry["hosts"]) & set(changed))
    ]


def busy(
    planned: Mapping[str, Any], serving: Sequence[str], accepted: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Replica -> its nodes whose server runs; only replicas that have such a node, without those in `accepted`."""
    found = {
        name: [host for host in entry["hosts"] if host in serving]
        for name, entry in planned["replicas"].items()
        if name not in accepted
    }
    return {name: hosts for name, hosts in found.items() if hosts}
