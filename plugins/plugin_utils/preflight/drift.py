"""What the nodes of a replica must have in common, before anything is changed and before they serve. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import (
    Settings,
    as_dict,
    as_list,
    finite,
)

Node = Mapping[str, Any]
"""`state` of dgx_vllm_state and `fabric` of dgx_vllm_fabric (may be empty)."""

CLOCK_SECONDS = 5.0
"""Reading a node takes up to a few seconds, and not equally long on each."""


BASE_LABEL = "dgx-vllm.base"
"""What tasks/image/build.yml notes of the base in the image."""
FOLDERS_DIFFER = "the model folders differ"


def _part(node: Node, name: str) -> Mapping[str, Any]:
    """One part of a node's state; {} where the node did not tell it, or told something else."""
    return as_dict(as_dict(node.get("state")).get(name))


class Common(NamedTuple):
    """One thing to compare: how to read it ('' if a node has none yet), how bad a difference is, and why."""

    read: Callable[[Node], str]
    status: str
    reason: str
    remedy: str


def _driver(node: Node) -> str:
    gpus = as_list(_part(node, "gpu").get("gpus"))
    return str(as_dict(gpus[0]).get("driver_version") or "") if gpus else ""


def _image(node: Node) -> str:
    image = _part(node, "image")
    return str(image.get("id") or "") if image.get("present") else ""


def _commit(node: Node) -> str:
    model = _part(node, "model")
    return str(model.get("commit") or "") if model.get("present") else ""


def _files(node: Node) -> Mapping[str, str]:
    """The files of a model folder; a model of the hub is known by its commit."""
    model = _part(node, "model")
    return as_dict(model.get("files")) if model.get("present") else {}


def _firmware(node: Node) -> str:
    devices = map(as_dict, as_list(as_dict(node.get("fabric")).get("devices")))
    return ", ".join(sorted({str(device["firmware"]) for device in devices if device.get("firmware")}))


COMMON: dict[str, Common] = {
    "same_driver": Common(
        _driver,
        "fail",
        "NCCL and CUDA graphs need the same driver on all nodes of a replica",
        "install the same driver on all of them and reboot",
    ),
    "same_kernel": Common(
        lambda node: str(_part(node, "kernel").get("running") or ""),
        "warn",
        "different kernels have different RDMA and GPU modules",
        "boot the same kernel on all of them",
    ),
    "same_docker": Common(
        lambda node: str(_part(node, "docker").get("version") or ""),
        "warn",
        "different Docker versions pass the GPU to the container differently",
        "install the same version on all of them; dgx_vllm_docker_version pins it",
    ),
    "same_toolkit": Common(
        lambda node: str(_part(node, "packages").get("nvidia-container-toolkit") or ""),
        "warn",
        "different toolkit versions mount different driver files into the container",
        "install the same version on all of them; dgx_vllm_toolkit_version pins it",
    ),
    "same_firmware": Common(
        _firmware,
        "warn",
        "adapters with different firmware behave differently under load",
        "update all of them to the newest of these versions and power-cycle the machines",
    ),
}
SERVED: dict[str, Common] = {
    "same_image": Common(
        _image,
        "fail",
        "the nodes would serve one model with different software",
        "load the same archive or pull the same digest on all of them",
    ),
    "same_model": Common(
        _commit,
        "fail",
        "the nodes would serve parts of different weights as one model",
        "set dgx_vllm_model_revision to one of these commits and run site.yml on all of them",
    ),
}
"""What the stages image and model install: a difference is a failure only after them."""

NAMES = (*COMMON, *SERVED, "same_clock")
"""Public names, which users may put into `dgx_vllm_preflight_accept`."""


def drift(nodes: Mapping[str, Node], settings: Settings, where: str = "") -> list[Finding]:
    """One finding per check over the nodes of one replica before any stage; none for a standalone node.

    What the stages image and model may still fix is a warning here; `served_drift` fails it after them. No stage
    changes a model folder.
    """
    if len(nodes) < 2:
        return []
    findings = [_compared(Check(where, name), common, nodes) for name, common in COMMON.items()]
    early = [
        finding if finding.found.startswith(FOLDERS_DIFFER) else _no_failure(finding)
        for finding in _served(nodes, settings, where)
    ]
    return [*accepting([*findings, *early], settings), _clock(Check(where, "same_clock"), nodes)]


def served_drift(nodes: Mapping[str, Node], settings: Settings, where: str = "") -> list[Finding]:
    """Findings about image and model of the nodes of one replica, after the stages that bring them."""
    return accepting(_served(nodes, settings, where), settings)


def accepting(findings: Iterable[Finding], settings: Settings) -> list[Finding]:
    """The findings, with failures of checks in dgx_vllm_preflight_accept as warnings."""
    accepted = set(settings.get("accept") or [])
    return [
        _no_failure(finding)._replace(reason=f"accepted: {finding.reason}")
        if finding.status == "fail" and finding.check in accepted
        else finding
        for finding in findings
    ]


def _no_failure(finding: Finding) -> Finding:
    return finding._replace(status="warn") if finding.status == "fail" else finding


def _served(nodes: Mapping[str, Node], settings: Settings, where: str) -> list[Finding]:
    """Images that are built on each node have different ids although made of the same files: their bases count."""
    built = settings.get("image_source") == "build"
    compare = {"same_image": _bases if built else _images, "same_model": _models}
    return [compare[name](Check(where, name), common, nodes) for name, common in SERVED.items()]


def _bases(check: Check, common: Common, nodes: Mapping[str, Node]) -> Finding:
    """By what the build noted of its base: a registry's digest, or the id of one that no registry's digest is known of.

    Images of earlier versions have no such note.
    """
    bases: dict[str, list[str]] = {}
    for host, node in nodes.items():
        image = node["state"]["image"]
        base = str((image.get("labels") or {}).get(BASE_LABEL) or "") if image["present"] else ""
        if base:
            bases.setdefault(base, []).append(host)
    if len(bases) < 2:
        return check.passed(next(iter(bases), "none yet"))
    stores = {node["state"].get("docker", {}).get("image_store") for node in nodes.values()}
    by_digest = {not base.startswith("id ") for base in bases}
    known = by_digest == {True} or (by_digest == {False} and len(stores) == 1)
    text = "; ".join(f"built from {base} on {', '.join(hosts)}" for base, hosts in bases.items())
    remedy = "write dgx_vllm_image_build_base as name@sha256:… and run site.yml on all of them"
    return Finding(*check, "fail" if known else "warn", text, common.reason, remedy)


def _images(check: Check, common: Common, nodes: Mapping[str, Node]) -> Finding:
    """By the registry's digest, which all nodes that pulled one image share; ids depend on Docker's image store."""
    having = {host: node for host, node in nodes.items() if _part(node, "image").get("present")}
    digests = [
        {str(name).rpartition("@")[2] for name in as_list(_part(node, "image").get("digests"))}
        for node in having.values()
    ]
    shared = set.intersection(*digests) if digests else set()
    if shared:
        return check.passed(min(shared))
    finding = _compared(check, common, nodes)
    stores = {
        host: str(_part(node, "docker").get("image_store") or "unknown") for host, node in having.items()
    }
    if finding.status != "pass" and len(set(stores.values())) > 1:
        return check.warned(
            "; ".join(f"{store} store on {host}" for host, store in stores.items()),
            "Docker's two image stores have different ids for one image, and the nodes share no digest of a registry",
            "pull the image by digest on all of them, or reinstall Docker so that all use one store",
        )
    return finding


def _models(check: Check, common: Common, nodes: Mapping[str, Node]) -> Finding:
    """By the commit of the hub, or folder by folder: names, sizes, and the contents of the small files."""
    having = {host: files for host, node in nodes.items() if (files := _files(node))}
    for host, files in having.items():
        first = next(iter(having))
        names = sorted(
            name for name in {**having[first], **files} if having[first].get(name) != files.get(name)
        )
        if names:
            return check.failed(
                f"{FOLDERS_DIFFER} on {first} and {host}: {', '.join(names[:3])}{' …' * (len(names) > 3)}",
                common.reason,
                f"copy the folder of one of them to the other (rsync -a --checksum), {len(names)} files differ",
            )
    if having:
        return check.passed(f"{len(next(iter(having.values())))} files alike")
    return _compared(check, common, nodes)


def _compared(check: Check, common: Common, nodes: Mapping[str, Node]) -> Finding:
    values: dict[str, list[str]] = {}
    for host, node in nodes.items():
        value = common.read(node)
        if value:
            values.setdefault(value, []).append(host)
    if len(values) < 2:
        return check.passed(next(iter(values), "none yet"))
    text = "; ".join(f"{value} on {', '.join(hosts)}" for value, hosts in values.items())
    return Finding(*check, common.status, text, common.reason, common.remedy)


def _clock(check: Check, nodes: Mapping[str, Node]) -> Finding:
    offsets = {host: finite(_part(node, "time").get("offset_seconds")) for host, node in nodes.items()}
    known = {host: offset for host, offset in offsets.items() if offset is not None}
    spread = max(known.values()) - min(known.values()) if known else 0.0
    if spread <= CLOCK_SECONDS:
        return check.passed(f"within {CLOCK_SECONDS:g} s")
    return check.warned(
        ", ".join(f"{host} {offset:+.1f} s" for host, offset in known.items()),
        "clocks that differ mix up the order of the nodes' logs and break TLS on one of them",
        "enable time synchronization on all nodes: timedatectl set-ntp true",
    )
