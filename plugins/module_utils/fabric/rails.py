"""From what the kernel shows to rails: which two functions are one port, which half-ports can carry the fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import SEARCH_PATH, Runner, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan, sysfs
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.management import management
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under

Device = Mapping[str, Any]

TOOLS = ("ping", "ib_write_bw", "netplan", "modprobe")
MODULES_FILE = "/etc/modules-load.d/dgx-vllm.conf"


class Wanted(NamedTuple):
    """What the module is asked; `rails` is how many the plan has, 0 when nobody says."""

    interfaces: tuple[str, ...] = ()
    management_addresses: tuple[str, ...] = ()
    soft: bool = False
    rails: int = 0


def twins(found: Sequence[Device]) -> list[dict[str, Any]]:
    """Every device with its `half` (0 or 1) and the interface of its `twin`.

    Twins are two functions of the adapter with the same port and PCI function number on different PCI buses: on
    a GB10 each half of a port hangs on its own PCIe root (0000:01:00.0 and 0002:01:00.0 are both port 0).
    """
    ports: dict[tuple[int, int], list[Device]] = {}
    for one in found:
        if one["kind"] == "nic" and one["port"] is not None and one["function"] is not None:
            ports.setdefault((one["port"], one["function"]), []).append(one)
    slots = sorted({_slot(one) for members in ports.values() for one in members})
    places: dict[str, tuple[int, str | None]] = {}
    for members in ports.values():
        ordered = sorted(members, key=lambda one: str(one["pci"]))
        for half, one in enumerate(ordered):
            other = ordered[1 - half]["interface"] if len(ordered) == 2 else None
            places[one["interface"]] = (half if other else _half_alone(one, slots), other)
    return [
        {
            **one,
            "half": places.get(one["interface"], (None, None))[0],
            "twin": places.get(one["interface"], (None, None))[1],
        }
        for one in found
    ]


def _slot(one: Device) -> str:
    return str(one["pci"]).rpartition(".")[0]


def _half_alone(one: Device, slots: Sequence[str]) -> int:
    """The half of a function without a twin: by the slots of the others, alone by its PCI domain."""
    if len(slots) > 1:
        return min(slots.index(_slot(one)), 1)
    return int(not str(one["pci"]).startswith("0000:"))


def _unfit(one: Device, wanted: Wanted) -> str:
    """Why a device can be no rail, link or not; '' when it can."""
    if one["management"]:
        return "carries the management network"
    if one["kind"] == "virtual":
        return "is a virtual function"
    if one["kind"] == "foreign":
        return "is no ConnectX adapter"
    if one["master"]:
        return f"is part of {one['master']}; a bond or bridge defeats RDMA"
    if one["interface"] in wanted.interfaces:
        return ""
    if wanted.interfaces:
        return "is not in dgx_vllm_fabric_interfaces"
    return "is software RDMA, for tests" if one["kind"] == "soft" and not wanted.soft else ""


def _linkless(one: Device) -> str:
    """Why no packet passes; '' when the link is there."""
    if one["carrier"] is None:
        return "is down, so nobody knows whether a cable is in it"
    return "" if one["carrier"] else "has no link: no cable, or the other end is off"


def _raise_it(one: Device) -> str:
    if one["carrier"] is None:
        return f"bring it up (ip link set {one['interface']} up) and run again"
    return "take the cable out, wait a few seconds and put it in again at both ends"


def _places(able: Sequence[Device], wanted: Wanted) -> dict[int, Device]:
    """Rail -> device: two rails a cabled port, so that a half without a link keeps its number.

    The cabled ports are those where a half has a link, or all of them where the plan needs all.
    """
    if wanted.interfaces:
        return {wanted.interfaces.index(one["interface"]): one for one in able}
    halves = [one for one in able if one["port"] is not None]
    every = sorted({one["port"] for one in halves})
    cabled = sorted({one["port"] for one in halves if one["carrier"]})
    ports = every if 2 * len(every) <= wanted.rails else cabled
    found = {2 * ports.index(one["port"]) + (one["half"] or 0): one for one in halves if one["port"] in ports}
    others = sorted(
        (one for one in able if one["port"] is None and one["carrier"]), key=lambda one: str(one["interface"])
    )
    return {**found, **dict(enumerate(others, len(found)))}


def refused(found: Sequence[Device], wanted: Wanted) -> list[str]:
    """Sentences about interfaces that are named as rails and can be none; no cable and no package mends them."""
    sentences = []
    for name in wanted.interfaces:
        one = next((one for one in found if one["interface"] == name), None)
        if one is None or not one["exists"]:
            sentences.append(
                f"dgx_vllm_fabric_interfaces names {name}, which this machine does not have; correct it."
            )
        elif _unfit(one, wanted):
            sentences.append(
                f"{name} {_unfit(one, wanted)}, so it can be no rail; take it out of dgx_vllm_fabric_interfaces."
            )
    return sentences


def choose(
    found: Sequence[Device], wanted: Wanted, refusals: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rails in order, port 0 and its first half first, and sentences about what stands in the way.

    `refusals` are those of `refused`, and come first.
    A half of a cabled port without a `link` is a rail too: it has its place in the plan and in netplan's file.
    """
    problems = [*refusals]
    able = [one for one in found if not _unfit(one, wanted) and one["exists"]]
    placed = sorted(_places(able, wanted).items())
    linked = {one["interface"] for _, one in placed if one["carrier"]}
    for _, one in placed:
        problems += _problems(one, found, wanted, linked)
    if not placed and not problems:
        problems.append(_nothing(found, wanted))
    rails = [
        {
            "rail": number,
            "interface": one["interface"],
            "link": bool(one["carrier"]),
            "rdma": one["rdma"],
            "rdma_port": 1,
            "port": number // 2 if one["port"] is None else one["port"],
            "half": number % 2 if one["half"] is None else one["half"],
            "mac": one["mac"],
        }
        for number, one in placed
    ]
    return rails, problems


def _problems(one: Device, found: Sequence[Device], wanted: Wanted, linked: set[str]) -> list[str]:
    name, twin = one["interface"], next((other for other in found if other["interface"] == one["twin"]), None)
    sentences = []
    if not one["carrier"]:
        which = f"{name}, the other half of port {one['port']}," if one["twin"] in linked else name
        sentences.append(f"{which} {_linkless(one)}; {_raise_it(one)}.")
    if one["kind"] == "nic" and twin is None:
        sentences.append(
            f"{name} (port {one['port']}) has no second half on another PCIe root, so half of the port's "
            "bandwidth is missing; update the adapter's firmware and check lspci -d 15b3:."
        )
    elif twin is not None and not wanted.interfaces and _unfit(twin, wanted):
        sentences.append(
            f"{name} is a rail, but {twin['interface']}, the other half of port {one['port']}, "
            f"{_unfit(twin, wanted)}, so half of the port's bandwidth is missing."
        )
    return sentences


def _nothing(found: Sequence[Device], wanted: Wanted) -> str:
    adapters = [one for one in found if one["kind"] in ("nic", "soft")]
    if not adapters:
        return "No ConnectX adapter is visible; check lspci -d 15b3: and that the driver mlx5_core is loaded."
    reasons = "; ".join(
        f"{one['interface'] or one['rdma']} {_unfit(one, wanted) or _linkless(one)}" for one in adapters
    )
    return (
        f"No interface can be a rail: {reasons}; put a cable into one port and bring its two interfaces up."
    )


def collect(wanted: Wanted, root: Path = Path("/"), runner: Runner = run) -> dict[str, Any]:
    """Everything about the fabric of this node that can be read without changing it."""
    owned = sysfs.addresses(runner)
    kept, unseen = management(root, owned, wanted.management_addresses, runner)
    found = twins(
        [
            {**one, "management": one["interface"] in kept}
            for one in sysfs.devices(root, owned, wanted.interfaces)
        ]
    )
    refusals = refused(found, wanted)
    rails, problems = choose(found, wanted, refusals)
    return {
        "devices": found,
        "rails": rails,
        "problems": [*([unseen] if unseen else []), *problems],
        "refused": refusals,
        "management": sorted(name for name in kept if name != "lo"),
        "addresses": {name: own for name, own in owned.items() if own},
        "modules": sysfs.modules(root),
        "uverbs": uverbs(root),
        "memlock": sysfs.memlock(root, runner),
        "down": waiting(found, wanted),
        "tools": tools(root),
        "netplan": netplan.read(root),
        "modules_at_boot": sysfs.line(under(root, MODULES_FILE)).splitlines(),
    }


def collect_rails(
    wanted: Wanted,
    addresses: Sequence[str] = (),
    timeout: float = 0,
    reader: Callable[[Wanted], dict[str, Any]] = collect,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """`collect` every second until all wanted rails have a link and all `addresses` or `timeout` s are over.

    A link takes a moment to come up, and its address comes after it.
    """
    left = timeout
    found = reader(wanted)
    while left > 0 and (_links(found) < wanted.rails or not set(addresses) <= _on_rails(found)):
        sleep(1)
        left -= 1
        found = reader(wanted)
    return found


def _links(found: Mapping[str, Any]) -> int:
    return sum(1 for rail in found["rails"] if rail["link"])


def _on_rails(found: Mapping[str, Any]) -> set[str]:
    return {address for rail in found["rails"] for address in found["addresses"].get(rail["interface"], [])}


def waiting(found: Sequence[Device], wanted: Wanted) -> list[str]:
    """Half-ports that are down: only when they are up does the kernel say whether a cable is in them."""
    return sorted(
        one["interface"]
        for one in found
        if one["kind"] in ("nic", "plain")
        and one["exists"]
        and one["carrier"] is None
        and not (one["management"] or one["master"])
        and one["interface"] in (wanted.interfaces or (one["interface"],))
    )


def tools(root: Path) -> dict[str, bool]:
    """Whether each command that the fabric stage and its gate use is installed."""
    folders = [under(root, folder) for folder in SEARCH_PATH.split(":")]
    return {name: any((folder / name).exists() for folder in folders) for name in TOOLS}


def uverbs(root: Path) -> list[str]:
    """Device files through which programs reach RDMA; the container gets the folder."""
    try:
        names: Iterable[str] = (entry.name for entry in (root / "dev/infiniband").iterdir())
        return sorted(name for name in names if name.startswith("uverbs"))
    except OSError:
        return []
