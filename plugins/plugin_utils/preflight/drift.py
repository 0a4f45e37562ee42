"""What the nodes of a replica must have in common, before anything is changed and before they serve. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.verdict import Row

Node = Mapping[str, Any]
"""`state` of dgx_vllm_state and `fabric` of dgx_vllm_fabric (may be empty)."""

CLOCK_SECONDS = 5.0
"""The reading itself takes up to a few seconds, differently on each node."""


class Common(NamedTuple):
    """One thing to compare: how to read it of a node ('' when it has none yet), how bad a difference is, and why."""

    read: Callable[[Node], str]
    status: str
    reason: str
    remedy: str


def _driver(node: Node) -> str:
    gpus = node["state"]["gpu"]["gpus"]
    return str(gpus[0]["driver_version"]) if gpus else ""


def _image(node: Node) -> str:
    image = node["state"]["image"]
    return str(image["id"] or "") if image["present"] else ""


def _commit(node: Node) -> str:
    model = node["state"]["model"]
    return str(model.get("commit") or "") if model["present"] else ""


def _firmware(node: Node) -> str:
    fabric = node.get("fabric") or {}
    return ", ".join(sorted({str(one["firmware"]) for one in fabric.get("devices", []) if one["firmware"]}))


COMMON: dict[str, Common] = {
    "same_driver": Common(
        _driver,
        "fail",
        "NCCL and CUDA graphs want one driver on all nodes of a replica",
        "install the same driver on all of them and reboot",
    ),
    "same_kernel": Common(
        lambda node: str(node["state"]["kernel"]["running"]),
        "warn",
        "different kernels bring different RDMA and GPU modules",
        "boot the same kernel on all of them",
    ),
    "same_docker": Common(
        lambda node: str(node["state"]["docker"]["version"] or ""),
        "warn",
        "different Docker versions hand the GPU over differently",
        "install one version, which dgx_vllm_docker_version pins",
    ),
    "same_toolkit": Common(
        lambda node: str(node["state"]["packages"].get("nvidia-container-toolkit") or ""),
        "warn",
        "different toolkits put different driver files into the container",
        "install one version, which dgx_vllm_toolkit_version pins",
    ),
    "same_firmware": Common(
        _firmware,
        "warn",
        "adapters with different firmware behave differently under load",
        "bring all to the newest of these versions and switch the machines off and on",
    ),
}
SERVED: dict[str, Common] = {
    "same_image": Common(
        _image,
        "fail",
        "the nodes would serve one model with different programs",
        "load the same archive, or pull by digest, on all of them",
    ),
    "same_model": Common(
        _commit,
        "fail",
        "the nodes would serve parts of different weights as one model",
        "set dgx_vllm_model_revision to one of these commits and run site.yml on all of them",
    ),
}
"""What the stages image and model bring: a difference is a failure only after them."""

NAMES = (*COMMON, *SERVED, "same_clock")
"""Public names, which users may put into `dgx_vllm_preflight_accept`."""


def drift(nodes: Mapping[str, Node], settings: Mapping[str, Any]) -> list[Row]:
    """One row a check over the nodes of one replica before any stage; none for a node alone.

    What the stages image and model may still mend is a warning here; `served_drift` judges it after them.
    """
    if len(nodes) < 2:
        return []
    rows = [_compared(name, common, nodes) for name, common in COMMON.items()]
    early = [row._replace(status="warn") if row.status == "fail" else row for row in _served(nodes, settings)]
    return [*_judged(rows, settings), *early, _clock(nodes)]


def served_drift(nodes: Mapping[str, Node], settings: Mapping[str, Any]) -> list[Row]:
    """Rows about image and model of the nodes of one replica, after the stages that bring them."""
    return _judged(_served(nodes, settings), settings)


def _served(nodes: Mapping[str, Node], settings: Mapping[str, Any]) -> list[Row]:
    """Images that are built on each node have different ids although made of the same files: not compared."""
    return [
        _compared(name, common, nodes)
        for name, common in SERVED.items()
        if name != "same_image" or settings.get("image_source") != "build"
    ]


def _judged(rows: Sequence[Row], settings: Mapping[str, Any]) -> list[Row]:
    """The rows with accepted failures as warnings."""
    accepted = set(settings.get("accept") or [])
    return [
        row._replace(status="warn", reason=f"accepted: {row.reason}")
        if row.status == "fail" and row.check in accepted
        else row
        for row in rows
    ]


def _compared(name: str, common: Common, nodes: Mapping[str, Node]) -> Row:
    values: dict[str, list[str]] = {}
    for host, node in nodes.items():
        value = common.read(node)
        if value:
            values.setdefault(value, []).append(host)
    if len(values) < 2:
        return Row(name, "pass", next(iter(values), "none yet"), "", "")
    text = "; ".join(f"{value} on {', '.join(hosts)}" for value, hosts in values.items())
    return Row(name, common.status, text, common.reason, common.remedy)


def _clock(nodes: Mapping[str, Node]) -> Row:
    offsets = {host: node["state"]["time"].get("offset_seconds") for host, node in nodes.items()}
    known = {host: float(offset) for host, offset in offsets.items() if offset is not None}
    apart = max(known.values()) - min(known.values()) if known else 0.0
    if apart <= CLOCK_SECONDS:
        return Row("same_clock", "pass", f"within {CLOCK_SECONDS:g} s", "", "")
    text = ", ".join(f"{host} {offset:+.1f} s" for host, offset in known.items())
    return Row(
        "same_clock",
        "warn",
        text,
        "clocks apart mix up the order of the nodes' logs and break TLS on one of them",
        "enable time synchronization on all nodes: timedatectl set-ntp true",
    )
