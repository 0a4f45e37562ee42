"""The fabric gate on damaged outputs of tools and history files, and preflight's comparison on damaged states."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.dgx_vllm.spark.plugins.filter.preflight import (
    preflight_drift,
    preflight_served_drift,
)
from ansible_collections.dgx_vllm.spark.plugins.filter.runtime import daemon_lacks_gpu, without_nvidia
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.measure import parse_ping, parse_write_bw
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.netplan import HEADER, given
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.history import (
    extended,
    previous_runs,
    slower,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nccl import parse_nccl
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.netplan import NetplanError, addressed_rails
from hypothesis import strategies as st
from jinja2 import Environment

from helpers.fuzz import VALUES, damaged, damaged_text, fuzz, other_numbers

TEMPLATE = Path(__file__).resolve().parents[2] / "roles/dgx_vllm/templates/40-cx7.yaml.j2"
PING = (
    "3 packets transmitted, 3 received, 0% packet loss\nrtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms\n"
    "ping: local error: message too long, mtu=1500\nFrag needed and DF set (mtu = 1500)\n"
)
WRITE_BW = (
    "#bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n"
    " 65536      5000             108.20             107.90            0.205\n"
)
NCCL = "NET/IB : Using [0]mlx5_0:1/RoCE [1]mlx5_1:1/RoCE\nUsing network IB\n# Avg bus bandwidth    : 21.5\n"


def finite(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and math.isfinite(value))


@fuzz("parse_ping", st.one_of(other_numbers(PING), damaged_text(PING)))
def test_ping_is_read_or_said_to_be_none(text: str) -> None:
    found = parse_ping(text)
    assert all(finite(found[key]) for key in ("sent", "received", "loss_percent", "rtt_ms", "mtu")), found


@fuzz("parse_write_bw", st.one_of(other_numbers(WRITE_BW), damaged_text(WRITE_BW)))
def test_write_bw_is_a_figure_or_an_error(text: str) -> None:
    found = parse_write_bw(text)
    assert (found["gbits"] is None) == bool(found["error"])
    assert finite(found["gbits"]) and finite(found["peak_gbits"]), found


@fuzz("parse_nccl", st.one_of(other_numbers(NCCL), damaged_text(NCCL)))
def test_nccl_is_a_figure_or_none(text: str) -> None:
    assert finite(parse_nccl(text)["busbw_gbytes"])


RUNS = [{"time": "2026-01-01", "figures": {"all-gather": 20.0, "a rail 0 - b rail 0": 100}}] * 2


@fuzz("history files", damaged(RUNS), VALUES)
def test_l14_a_history_file_is_read_run_by_run(runs: Any, content: Any) -> None:
    text = base64.b64encode(json.dumps(runs).encode()).decode()
    found = previous_runs([{"content": text}], ["r"]).get("r", [])
    new = {"all-gather": 1.0}
    kept = extended(found, "now", new)
    slower("r", found, new)
    again = base64.b64encode(json.dumps(kept).encode()).decode()
    assert previous_runs([{"content": again}], ["r"])["r"] == kept
    previous_runs([{"content": content}], ["r"])
    previous_runs([content], ["r"])


STATE = {
    "gpu": {"gpus": [{"driver_version": "580.1"}]},
    "kernel": {"running": "6.14"},
    "docker": {"version": "28.3.1", "image_store": "overlay2"},
    "packages": {"nvidia-container-toolkit": "1.17"},
    "image": {"present": True, "id": "sha256:1", "digests": ["a@sha256:1"]},
    "model": {"present": True, "commit": "c" * 40, "files": {"config.json": "12", "m.safetensors": "7"}},
    "time": {"offset_seconds": 0.5},
}
FABRIC = {"fabric": {"devices": [{"firmware": "28.1"}, {"firmware": None}]}}
HOST = {"__dgx_vllm_node": {"state": STATE}, "__dgx_vllm_fabric_read": FABRIC}


@fuzz("preflight drift", damaged({"a": HOST, "b": HOST}), examples=200)
def test_what_a_node_tells_of_itself_never_breaks_the_comparison(hostvars: Any) -> None:
    hostvars = hostvars if isinstance(hostvars, dict) else {}
    for compare in (preflight_drift, preflight_served_drift):
        for row in compare(hostvars, ["a", "b"], {"image_source": "pull"}, "r"):
            assert row["status"] in ("pass", "warn", "fail", "skip")


DAEMON = {
    "runtimes": {"nvidia": {"path": "x"}, "other": {}},
    "features": {"cdi": True},
    "log-driver": "journald",
}


@fuzz("daemon.json", damaged(DAEMON), st.booleans(), st.booleans())
def test_what_is_not_nvidias_stays_in_daemon_json(daemon: Any, runtime: bool, cdi: bool) -> None:
    daemon = daemon if isinstance(daemon, dict) else {}
    rest = without_nvidia(daemon, {"nvidia_runtime": runtime, "cdi": cdi})
    assert json.dumps(rest.get("log-driver")) == json.dumps(daemon.get("log-driver"))
    runtimes = daemon.get("runtimes")
    if isinstance(runtimes, dict) and "other" in runtimes:
        assert json.dumps(rest["runtimes"]["other"]) == json.dumps(runtimes["other"])
    daemon_lacks_gpu(daemon, "runtime", "28.2")
    daemon_lacks_gpu(daemon, "cdi", "28.2")


# What the kernel allows: no slash, no white space, 15 bytes at most.
INTERFACES = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"), min_size=1, max_size=15
)


@fuzz(
    "netplan names",
    st.one_of(
        INTERFACES,
        st.sampled_from(("0x1f", "`", "null", "1e3", "yes", "a:", "~", "enP2p1s0f0np0", "bond0.1")),
    ),
)
def test_an_interface_in_netplan_keeps_its_name(name: str) -> None:
    facts = {"rails": [{"interface": name}], "management": []}
    try:
        rails = addressed_rails(facts, {"rails": [{"address": "198.51.100.1/24"}]})
    except NetplanError as error:
        assert str(error).strip()
        return
    template = Environment(trim_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        __dgx_vllm_netplan_rails=rails,
        __dgx_vllm_fabric={"renderer": "networkd"},
        __dgx_vllm_fabric_mtu=9000,
    )
    assert list(yaml.safe_load(text)["network"]["ethernets"]) == [name]
    assert [found[0] for found in given(HEADER + "\n" + text)] == [name]
