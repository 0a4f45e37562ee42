"""Inventories for the tests: as dictionaries, and as strategies of hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Variables = dict[str, dict[str, Any]]
MODEL = "Qwen/Qwen3-Next-80B-A3B-Instruct-FP8"


def hosts(count: int, first: int = 1, **common: Any) -> Variables:
    """spark1, spark2 … with `common` (without the prefix dgx_vllm_) on each."""
    return {
        f"spark{number}": {
            "ansible_host": f"192.0.2.{number}",
            "dgx_vllm_model": MODEL,
            **{f"dgx_vllm_{name}": value for name, value in common.items()},
        }
        for number in range(first, first + count)
    }


def replica(count: int, name: str = "chat", first: int = 1, **more: Any) -> Variables:
    """`count` nodes that serve together; a cable for two, a switch for more, a prefix for all."""
    given = {
        "replica": name,
        "tensor_parallel_size": count,
        "fabric_kind": "direct" if count == 2 else "switch",
        "fabric_prefix": "198.51.100.0/24",
        **more,
    }
    return hosts(count, first, **given)


@st.composite
def fleets(draw: st.DrawFn) -> Variables:
    """Up to six good replicas on one prefix, kinds and executors mixed, hosts in any order."""
    fleet: Variables = {}
    first = 1
    for number in range(draw(st.integers(1, 6))):
        size = draw(st.sampled_from((1, 2, 3, 4, 6, 8)))
        tensor = draw(st.sampled_from([part for part in range(1, 9) if size % part == 0]))
        more: dict[str, Any] = {
            "tensor_parallel_size": tensor,
            "pipeline_parallel_size": size // tensor,
            "executor": draw(st.sampled_from(("mp", "ray"))),
            "fabric_ports": draw(st.sampled_from((1, 2))),
        }
        if size == 1:
            fleet |= hosts(1, first)
        elif size > 2 and draw(st.booleans()):
            ring = {"fabric_kind": "ring", "fabric_prefix": f"10.0.{number}.0/24"}
            fleet |= replica(size, f"r{number}", first, **{**more, **ring})
        else:
            fleet |= replica(size, f"r{number}", first, **more)
        first += size
    order = draw(st.permutations(sorted(fleet)))
    return {host: fleet[host] for host in order}


def fleet(sizes: list[int], kind: str = "switch") -> dict[str, dict[str, object]]:
    """Replicas r0, r1 … of these sizes, nodes r0n0, r0n1 …; each replica has a prefix of its own."""
    found = {}
    for number, size in enumerate(sizes):
        for node in range(size):
            found[f"r{number}n{node}"] = {
                "dgx_vllm_replica": f"r{number}",
                "dgx_vllm_tensor_parallel_size": size,
                "dgx_vllm_fabric_kind": kind,
                "dgx_vllm_fabric_prefix": f"10.{number}.0.0/24",
                "ansible_host": f"192.0.2.{10 * number + node + 1}",
            }
    return found
