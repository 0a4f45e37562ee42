"""Measuring a node's rails: large pings in parallel, and ib_write_bw as server and as client."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, SEARCH_PATH, Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import sysfs as fabric_sysfs
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.measure import (
    JUMBO_PAYLOAD,
    parse_ping,
    parse_write_bw,
)

Test = Mapping[str, Any]
Starter = Callable[[Sequence[str]], None]

_KEYS = ("from", "to", "rail", "to_rail")
_NOT_YET = "the other end took no connection"
ATTEMPTS = 10


def _named(test: Test) -> dict[str, Any]:
    return {key: test[key] for key in _KEYS}


def ping_all(tests: Sequence[Test], runner: Runner, payload: int = JUMBO_PAYLOAD) -> list[dict[str, Any]]:
    """Three packets of `payload` bytes on each rail to each peer, all at once; small ones as well if those fail."""
    if not tests:
        return []
    with ThreadPoolExecutor(max_workers=32) as pool:
        results = list(pool.map(lambda test: _ping(test, runner, payload), tests))
    macs = neighbours(runner)
    return [
        {**result, "peer_mac": macs.get((test["peer"], test["interface"]), "")}
        for test, result in zip(tests, results)
    ]


def _ping(test: Test, runner: Runner, payload: int) -> dict[str, Any]:
    begin = ["ping", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "2", "-I", str(test["interface"])]
    large = runner([*begin, "-M", "do", "-s", str(payload), str(test["peer"])])
    result = {**_named(test), **parse_ping(large.stdout + large.stderr)}
    result["error"] = large.stderr.strip() if large.rc == MISSING else ""
    result["plain_ok"] = True
    if not result["ok"]:
        small = runner([*begin, str(test["peer"])])
        result["plain_ok"] = parse_ping(small.stdout + small.stderr)["ok"]
    return result


def neighbours(runner: Runner) -> dict[tuple[str, str], str]:
    """(address, interface) -> MAC of every neighbour that the kernel knows."""
    done = runner(["ip", "-json", "neigh", "show"])
    try:
        rows = json.loads(done.stdout) if done.rc == 0 else []
    except ValueError:
        rows = []
    return {
        (str(row.get("dst")), str(row.get("dev"))): str(row.get("lladdr") or "").lower()
        for row in rows
        if isinstance(row, dict)
    }


def gid_index(root: Path, test: Test) -> int | None:
    """The RoCE v2 entry of the rail's address, read at the moment of the test: it moves."""
    port = root / "sys/class/infiniband" / str(test["rdma"]) / "ports" / str(test["rdma_port"])
    for gid in fabric_sysfs.gids(port):
        if gid["type"] == "RoCE v2" and gid["address"] == test["address"]:
            return int(gid["index"])
    return None


def write_command(test: Test, gid: int, size: int, iterations: int) -> list[str]:
    """ib_write_bw over one rail, as the server runs it; the client adds the server's address."""
    return [
        "ib_write_bw", "-d", str(test["rdma"]), "-i", str(test["rdma_port"]), "-x", str(gid), "-p", str(test["port"]),
        "-F", "--report_gbits", "-s", str(size), "-n", str(iterations),
    ]  # fmt: skip


def _unmeasurable(test: Test, gid: int | None) -> str:
    if not test["rdma"]:
        return f"{test['interface']} has no RDMA device"
    return f"{test['rdma']} has no RoCE v2 GID for {test['address']}" if gid is None else ""


def serve(
    tests: Sequence[Test], root: Path, start: Starter, size: int, iterations: int, seconds: int
) -> list[dict[str, Any]]:
    """Start one server per test, each for one client and for `seconds` at most.

    Returns the results of those that could not be started, with their reason as `error`.
    """
    failed = []
    for test in tests:
        gid = gid_index(root, test)
        reason = _unmeasurable(test, gid)
        if reason or gid is None:
            failed.append({**_named(test), **parse_write_bw(""), "error": reason})
        else:
            start(["timeout", str(seconds), *write_command(test, gid, size, iterations)])
    return failed


def detached(argv: Sequence[str]) -> None:
    """Start a process that outlives the module."""
    subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={"PATH": SEARCH_PATH, "LC_ALL": "C"},
    )


def write_all(
    tests: Sequence[Test],
    root: Path,
    runner: Runner,
    size: int,
    iterations: int,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Bandwidth of each rail, one after another. A server needs a moment to listen: it is asked a few times."""
    results = []
    for test in tests:
        gid = gid_index(root, test)
        reason = _unmeasurable(test, gid)
        if reason or gid is None:
            result = {**parse_write_bw(""), "error": reason}
        else:
            result = _write([*write_command(test, gid, size, iterations), str(test["peer"])], runner, sleep)
        results.append({**_named(test), **result})
    return results


def _write(argv: Sequence[str], runner: Runner, sleep: Callable[[float], None]) -> dict[str, Any]:
    for attempt in range(ATTEMPTS):
        done = runner(argv)
        result = parse_write_bw(done.stdout + done.stderr)
        if result["error"] != _NOT_YET:
            break
        if attempt + 1 < ATTEMPTS:
            sleep(0.5)
    return result
