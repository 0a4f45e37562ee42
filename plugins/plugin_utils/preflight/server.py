"""Preflight checks of what the server needs (memory, disks, its port) and of who can reach it."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.container_arguments import weakening
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.addresses import own_network
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import (
    GIB,
    Settings,
    State,
    gib,
)

UTILIZATION_BAD = 0.90
UTILIZATION_GOOD = 0.85
"""On a GB10 0.5 to 0.85 is known to work and more than 0.90 to freeze the whole host, ssh included (vLLM issues 46307,
56824); a dgx_vllm_gpu_memory_utilization above 0.90 is refused before anything is read."""

SWAP_TINY = 2 * GIB
"""Below this, swap cannot turn memory pressure into minutes of thrashing."""

ACTIVE = ("active", "activating", "reloading")


def _ours_runs(state: State) -> bool:
    return bool(state["container"]["running"]) or state["service"]["active_state"] in ACTIVE


def _neighbours(state: State) -> str:
    names = [container["name"] for container in state["docker"]["containers"]]
    return f" (running containers: {', '.join(names)})" if names else ""


def _kv_budget(check: Check, state: State, kv_bytes: int, share: float, nodes: int) -> Finding:
    """KV cache in bytes: vLLM takes that and the node's part of the weights; its share must be free first."""
    total, available = state["memory"]["total_bytes"], state["memory"]["available_bytes"]
    models = [state["model"], *state.get("other_models", [])]
    weights = sum(int(model.get("size_bytes") or 0) for model in models) // nodes
    need = kv_bytes + weights
    part = "" if nodes == 1 else f", its part of {nodes}"
    what = f"{gib(kv_bytes)} KV cache" + (
        f" + {gib(weights)} weights{part}" if weights else " + weights of unknown size"
    )
    if need > UTILIZATION_BAD * total:
        return check.failed(
            what,
            f"more than {UTILIZATION_BAD:.0%} of the {gib(total)} MemTotal of /proc/meminfo freezes a GB10",
            "lower dgx_vllm_kv_cache_memory_bytes or serve a smaller model",
        )
    if need > available and not _ours_runs(state):
        return check.failed(
            what,
            f"/proc/meminfo shows only {gib(available)} MemAvailable of {gib(total)}",
            f"stop what uses the memory{_neighbours(state)}, or lower dgx_vllm_kv_cache_memory_bytes",
        )
    if share * total > available and not _ours_runs(state):
        return check.failed(
            f"{what}, and {share:.2f} of {gib(total)} free at the start",
            f"/proc/meminfo shows only {gib(available)} MemAvailable, and vLLM asks for its share also with a KV cache "
            "in bytes",
            f"stop what uses the memory{_neighbours(state)}, or lower dgx_vllm_gpu_memory_utilization "
            f"to {int(100 * available / total) / 100:.2f} or less",
        )
    return check.passed(what, f"{gib(available)} MemAvailable of {gib(total)}, /proc/meminfo")


def memory(check: Check, state: State, settings: Settings) -> Finding:
    """The server's budget fits MemTotal and MemAvailable; nvidia-smi reports no memory on a GB10."""
    total, available = state["memory"]["total_bytes"], state["memory"]["available_bytes"]
    if total <= 0:
        return check.failed(
            "unknown", "/proc/meminfo has no MemTotal", "check that /proc is mounted on the node"
        )
    kv_bytes = int(settings.get("kv_cache_memory_bytes") or 0)
    share = float(settings.get("gpu_memory_utilization", 0.8))
    if kv_bytes:
        return _kv_budget(check, state, kv_bytes, share, int(settings.get("world_size", 1)))
    need = share * total
    what = f"{share:.2f} of {gib(total)} = {gib(need)}"
    if need > available and not _ours_runs(state):
        return check.failed(
            what,
            f"/proc/meminfo shows only {gib(available)} MemAvailable",
            f"stop what uses the memory{_neighbours(state)}, or lower dgx_vllm_gpu_memory_utilization "
            f"to {int(100 * available / total) / 100:.2f} or less",
        )
    if share > UTILIZATION_GOOD:
        return check.warned(
            what,
            f"values from 0.50 to {UTILIZATION_GOOD:.2f} are known to work on a GB10",
            f"lower dgx_vllm_gpu_memory_utilization to {UTILIZATION_GOOD:.2f} if the node stalls under load",
        )
    return check.passed(what, f"{gib(available)} MemAvailable of {gib(total)}, /proc/meminfo")


def swap(check: Check, state: State, settings: Settings) -> Finding:
    """Much swap makes a GB10 that runs out of memory thrash instead of killing the server."""
    size = state["memory"]["swap_total_bytes"]
    if size <= SWAP_TINY:
        return check.passed(gib(size) if size else "off", "/proc/meminfo")
    return check.warned(
        gib(size),
        "/proc/meminfo: under memory pressure swap freezes the host instead of letting the kernel kill the server",
        f"turn swap off (swapoff -a, /etc/fstab) or keep it below {gib(SWAP_TINY)}",
    )


def _wanted(state: State, settings: Settings, what: str) -> int:
    """Bytes that must be free on a disk for what is not on it yet, 0 if nothing will be fetched to it."""
    needed = settings.get("image_needed" if what == "docker" else "model_needed", True)
    if not needed:
        return 0
    there = (
        (state.get("base_image") or {}).get("size_bytes")
        if what == "docker"
        else state["model"].get("partial_bytes")
    )
    return max(0, int(float(settings.get(f"min_free_{what}_gib") or 0) * GIB) - int(there or 0))


def _disk(check: Check, state: State, need: int, what: str, variable: str, reason: str) -> Finding:
    disk = state["disks"][what]
    free = disk["free_bytes"]
    found = f"{gib(free)} free on {disk['mount']}"
    if not need:
        return check.passed(found, "nothing to fetch")
    if free >= need:
        return check.passed(found, f"statvfs of {disk['path']}; {gib(need)} needed")
    return check.failed(
        found,
        f"{reason} {gib(need)} at {disk['path']} ({variable})",
        f"free space on {disk['mount']}, move {disk['path']} to a larger disk, or lower {variable}",
    )


def disk_docker(check: Check, state: State, settings: Settings) -> Finding:
    """Room for the image where Docker keeps its data."""
    return _disk(
        check,
        state,
        _wanted(state, settings, "docker"),
        "docker",
        "dgx_vllm_min_free_docker_gib",
        "the image needs",
    )


def disk_models(check: Check, state: State, settings: Settings) -> Finding:
    """Room for the weights; if Docker uses the same file system, for weights and image together."""
    need = _wanted(state, settings, "models")
    also = _wanted(state, settings, "docker")
    disks = state["disks"]
    if need and also and disks["docker"]["mount"] == disks["models"]["mount"]:
        return _disk(
            check,
            state,
            need + also,
            "models",
            "dgx_vllm_min_free_models_gib + dgx_vllm_min_free_docker_gib, on one file system",
            "the model and the image need",
        )
    return _disk(check, state, need, "models", "dgx_vllm_min_free_models_gib", "the model needs")


def model(check: Check, state: State, settings: Settings) -> Finding:
    """A model folder is whole, and root without capabilities, which is what the containers have, can use the files."""
    found = state["model"]
    where = found.get("path") or "the folder of the models"
    if found["kind"] == "path" and not found["present"]:
        return check.failed(
            where,
            f"it {found['lacking']}, so vLLM finds no model there",
            "put the whole model there, or set dgx_vllm_model to its id on the hub",
        )
    closed = found.get("unreadable") or (found.get("unwritable") if not found["present"] else "")
    if closed:
        return check.failed(
            closed,
            f"root in the containers has no capabilities, so it cannot {'read' if found['present'] else 'write to'} "
            "what belongs to another user and is not open to all",
            f"sudo chown -R root {closed}, or set dgx_vllm_models_dir to a folder of root (the default is one)"
            if found["kind"] == "hub"
            else f"sudo chmod -R go+rX {where}",
        )
    return check.passed(gib(found["size_bytes"]) if found["present"] else "to be fetched", where)


def heads(check: Check, state: State, settings: Settings) -> Finding:
    """Tensor parallelism gives each node an equal number of attention heads; the model may not be known yet."""
    tensor, number = int(settings.get("tensor_parallel_size", 1)), state["model"].get("heads")
    if tensor == 1 or number is None:
        return check.passed("one part" if tensor == 1 else "not known yet")
    if number % tensor == 0:
        return check.passed(f"{number} heads in {tensor} parts")
    return check.warned(
        f"{number} heads in {tensor} parts",
        f"config.json names {number} attention heads, and vLLM gives each of {tensor} nodes an equal number of them",
        f"write `dgx_vllm_pipeline_parallel_size: {tensor}` and `dgx_vllm_tensor_parallel_size: 1` to divide layers",
    )


def desktop(check: Check, state: State, settings: Settings) -> Finding:
    """A desktop takes memory that the model could have: worth knowing, and no more."""
    found = state.get("desktop") or {}
    if not found.get("shells"):
        return check.passed("none")
    return check.warned(
        f"{', '.join(found['shells'])}, {gib(found['bytes'])}",
        "a desktop runs on this node, and its programs share the memory with the model",
        "nothing to do if the model fits; sudo systemctl set-default multi-user.target and a reboot turn it off",
    )


def _address(text: str) -> Any:
    try:
        return ipaddress.ip_address("127.0.0.1" if text == "localhost" else text.strip("[]"))
    except ValueError:
        return None


def _collides(listening: list[str], host: str) -> bool:
    """Two processes can listen on the same port only on two different specific addresses."""
    ours = _address(host)
    if ours is None or ours.is_unspecified or not listening:
        return True
    theirs = [_address(address) for address in listening]
    return any(address is None or address.is_unspecified or address == ours for address in theirs)


def port(check: Check, state: State, settings: Settings) -> Finding:
    """The server's port is free, or our own service has it."""
    number, held = settings.get("port", 8000), state["port"]
    if held.get("error"):
        return check.warned(f"{number} not checked", held["error"], "install or repair iproute2")
    if not held["in_use"]:
        return check.passed(f"{number} free", "nothing listens on it")
    if held["unit"] == settings.get("unit", "dgx-vllm.service"):
        return check.passed(f"{number} used by {held['unit']}", "our own server")
    pid = held["pid"] or "unknown"
    who = f"{held['process'] or 'a process'} (pid {pid}, {held['unit'] or 'no systemd unit'})"
    if not _collides(held.get("addresses") or [], str(settings.get("host", ""))):
        return check.passed(
            f"{number} free on {settings['host']}", f"{who} uses it on {', '.join(held['addresses'])}"
        )
    publishing = [
        container["name"]
        for container in state["docker"]["containers"]
        if f":{number}->" in container.get("ports", "")
    ]
    if publishing:
        who, stop = f"container {publishing[0]}", f"docker stop {publishing[0]}"
    elif str(held["unit"] or "").endswith(".service"):
        stop = f"systemctl stop {held['unit']}"
    else:
        stop = f"end process {held['pid']}" if held["pid"] else "end the process that listens on it"
    return check.failed(
        f"{number} used by {who}",
        "the server cannot listen on its port",
        f"free it ({stop}) or set dgx_vllm_port",
    )


def exposure(check: Check, state: State, settings: Settings) -> Finding:
    """Listening on all addresses requires a key, and an address that others can reach should have one.

    Even with a key some paths of vLLM stay open.
    """
    host = str(settings.get("host", "127.0.0.1"))
    address = _address(host)
    if address is not None and address.is_loopback:
        return check.passed(host, "only this machine can reach the server")
    if settings.get("api_key_set"):
        return check.passed(host, "a key protects /v1 only; /tokenize, /pause and /invocations stay open")
    reason = "everyone who can reach this address can use the server without a key"
    remedy = "set dgx_vllm_api_key (from Ansible Vault), or dgx_vllm_host to 127.0.0.1 with a proxy in front"
    if address is None or not address.is_unspecified:
        return check.warned(host, reason, remedy)
    return check.failed(
        f"{host} without a key",
        reason,
        f"{remedy}, or put exposure into dgx_vllm_preflight_accept if that is intended",
    )


def isolation(check: Check, state: State, settings: Settings) -> Finding:
    """Options of `docker run` that open the host to the container are an operator's explicit choice."""
    weak = weakening(settings.get("container_extra_args") or [])
    if not weak:
        return check.passed(
            "complete", "no option of dgx_vllm_container_extra_args opens the host to the container"
        )
    return check.failed(
        ", ".join(weak),
        "dgx_vllm_container_extra_args opens the host to the container, which runs code that a model may bring",
        "remove it, or put isolation into dgx_vllm_preflight_accept if that is intended",
    )


def fabric_prefix(check: Check, state: State, settings: Settings) -> Finding:
    """Rails in networks that belong to others would send what is meant for them into the cable."""
    foreign = [address for address in settings.get("rails") or [] if not own_network(address)]
    if not foreign:
        return check.passed("own networks", "private, shared, link-local or for documentation")
    return check.failed(
        ", ".join(foreign),
        "these are public addresses: the node would send to its fabric what is meant for their owners",
        "take dgx_vllm_fabric_prefix from 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10, or put "
        "fabric_prefix into dgx_vllm_preflight_accept if the network is yours",
    )
