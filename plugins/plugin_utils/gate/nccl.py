"""The all-gather from inside the image: what it prints, and what that means for its replica."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding, failed, passed, warned
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import ONE_INTERFACE_GBYTES, Limits

CHECK = "nccl"


def parse_nccl(text: str) -> dict[str, Any]:
    """`transport` (IB, Socket or ''), `devices` by name, and `busbw_gbytes`, the bus bandwidth in GB/s or None.

    `text` has NCCL's INFO lines and a summary line as nccl-tests prints it.
    """
    transport = ""
    for pattern in (r"Using network (\w+)", r"NET/(IB|Socket) : Using"):
        matches = re.findall(pattern, text)
        if matches:
            transport = str(matches[-1])
            break
    using = re.findall(r"NET/IB : Using (.*)", text)
    devices = re.findall(r"\[\d+\]([\w.-]+):\d+/", using[-1]) if using else []
    summary = re.search(r"Avg bus bandwidth\s*:\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)(?!\S)", text)
    return {
        "transport": transport,
        "devices": devices,
        "busbw_gbytes": float(summary.group(1)) if summary else None,
    }


def gathered(planned: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Replica -> the keys of parse_nccl, and `error` if a node failed; replicas that ran no all-gather are left out.

    `results` are those of the container by host. The head prints the bandwidth; a node that failed names its reason.
    """
    found: dict[str, Any] = {}
    for name, replica in planned["replicas"].items():
        own = {host: results.get(host) or {} for host in replica["hosts"]}
        if all(not result or result.get("skipped") for result in own.values()):
            continue
        texts = {
            host: f"{result.get('stdout', '')}\n{result.get('stderr', '')}" for host, result in own.items()
        }
        parsed = parse_nccl(texts[replica["head"]])
        bad = next((host for host, result in own.items() if result.get("rc", 1) != 0), None)
        if bad is not None:
            lines = [line.strip() for line in texts[bad].splitlines() if line.strip()]
            reason = lines[-1] if lines else str(own[bad].get("msg") or "no output in time")
            parsed = {**parsed, "busbw_gbytes": None, "error": f"{bad}: {reason}"}
        found[name] = parsed
    return found


def nccl_findings(
    name: str, hosts: Mapping[str, Mapping[str, Any]], result: Mapping[str, Any] | None, limits: Limits
) -> list[Finding]:
    """Transport, devices and bus bandwidth of a replica's all-gather; [] without one."""
    if not result:
        return []
    transport, busbw = result.get("transport") or "", result.get("busbw_gbytes")
    found = f"{busbw:g} GB/s over {transport or 'an unknown transport'}" if busbw is not None else "no result"
    rails = max((len(facts["rails"]) for facts in hosts.values()), default=0)
    used = list(result.get("devices") or [])
    if transport == "Socket":
        finding = failed(
            name,
            CHECK,
            found,
            "TCP fallback: NCCL uses sockets instead of RDMA",
            "check that the container has /dev/infiniband, IPC_LOCK and unlimited memlock, that NCCL_IB_DISABLE is 0 "
            "and that NCCL_IB_HCA names this node's devices",
        )
    elif used and len(used) < rails:
        finding = failed(
            name,
            CHECK,
            f"{found}, devices {', '.join(used)}",
            f"NCCL uses {len(used)} of {rails} interfaces, so part of the bandwidth is missing",
            "let NCCL_IB_HCA name all of them: site.yml with the tag service renders it again",
        )
    elif busbw is None:
        finding = failed(
            name,
            CHECK,
            found,
            f"the all-gather ended without a result; {result.get('error') or 'it printed nothing'}",
            "fix what it reports; the variables are those of the server's environment file",
        )
    elif busbw >= limits["busbw_gbytes"]:
        finding = passed(name, CHECK, found)
    elif len(hosts) > 2 and busbw > limits["tcp_busbw_gbytes"]:
        finding = warned(
            name,
            CHECK,
            found,
            f"below {limits['busbw_gbytes']:g} GB/s, which pairs reach; nobody has published a figure for "
            f"{len(hosts)} nodes",
            "compare it with the same replica's next runs (trend)",
        )
    else:
        finding = failed(
            name,
            CHECK,
            found,
            _cause(busbw, limits),
            "run it with NCCL_DEBUG=INFO: `Using network` must say IB and `NET/IB : Using` must list every interface's "
            "device",
        )
    return [finding]


def _cause(busbw: float, limits: Limits) -> str:
    if busbw <= limits["tcp_busbw_gbytes"]:
        return f"at most {limits['tcp_busbw_gbytes']:g} GB/s, as MTU 1500 or TCP give"
    below = f"below {limits['busbw_gbytes']:g} GB/s"
    if busbw <= ONE_INTERFACE_GBYTES:
        return f"{below}, and no more than one interface alone gives ({ONE_INTERFACE_GBYTES:g})"
    return f"{below}, although each rail is measured separately"
