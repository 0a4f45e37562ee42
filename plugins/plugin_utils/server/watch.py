"""The watch's configuration for one node of a replica, part of the node's release."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import connect_host
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import (
    Node,
    Row,
    ServerError,
    Settings,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.setting_table import WATCH_LIMITS


def configuration(settings: Settings, row: Row, node: Node) -> dict[str, Any]:
    """watch.json of the node's release.

    `engine` is where the head accepts its workers for as long as its server lives. @RELEASE@ stands for the release's
    name, which is not known before its files are.
    """
    limits = settings["dgx_vllm_watch_limits"]
    unknown = sorted(set(limits) - set(WATCH_LIMITS))
    if unknown:
        raise ServerError(
            f"dgx_vllm_watch_limits has {', '.join(unknown)}; known are {', '.join(WATCH_LIMITS)}."
        )
    return {
        "host": row["host"],
        "rank": int(row["rank"]),
        "head": row["head"],
        "address": row["address"],
        "port": int(row["watch_port"]),
        "peers": dict(row["peer_addresses"]),
        "readers": list(settings["dgx_vllm_watch_readers"]),
        "secret": node["watch_secret"],
        "unit": node["unit"],
        "container": node["container"],
        "api": {
            "address": connect_host(str(settings["dgx_vllm_host"])),
            "port": int(settings["dgx_vllm_port"]),
            "model": str(node["served_names"][0]),
            "env_file": f"{node['config_dir']}/releases/@RELEASE@/vllm.env",
        },
        "engine": {
            "address": row["head_address"],
            "port": int(row["ray"]["port"] if row["executor"] == "ray" else row["master_port"]),
        },
        "state": node["watch_state"],
        "limits": {name: float(value) for name, value in limits.items()},
    }


def addresses(row: Row, api: str, readers: Sequence[str]) -> str:
    """The lines of the watch's unit that let it talk to its replica, `readers` and the server alone.

    `api` is where the server listens. A name could stand for any address, so with one the unit says nothing.
    """
    server = connect_host(api)
    try:
        ipaddress.ip_address(server)
    except ValueError:
        return f"# Any address: the server listens at the name {server}."
    allowed = dict.fromkeys([row["address"], *row["peer_addresses"].values(), server, *readers])
    return f"IPAddressDeny=any\nIPAddressAllow=localhost {' '.join(allowed)}"
