"""From what the kernel shows to rails: which two functions are one port, which half-ports can carry the fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils import fabric_sysfs as sysfs
from ansible_collections.dgx_vllm.spark.plugins.module_utils import netplan
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import SEARCH_PATH, Runner, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.host import under

Device = Mapping[str, Any]

TOOLS = ("ping", "ib_write_bw", "netplan", "modprobe")
MODULES_FILE = "/etc/modules-load.d/dgx-vllm.conf"


class Wanted(NamedTuple):
    """What the module is asked."""

    interfaces: tuple[str, ...] = ()
    management_addresses: tuple[str, ...] = ()
    soft: bool = False


def twins(found: Sequence[Device]) -> list[dict[str, Any]]:
    """Every device with its `half` (0 or 1) and the interface of its `twin`.

    Twins are two functions of the adapter with the same port and PCI function number on different PCI buses: on
    a GB10 each half of a port hangs on its own PCIe root (0000:01:00.0 and 0002:01:00.0 are both port 0).
    """
    ports: dict[tuple[int, int], list[Device]] = {}
    for one in found:
        if one["kind"] == "nic" and one["port"] is not None and one["function"] is not None:
            ports.setdefault((one["port"], one["function"]), []).append(one)
    places: dict[str, tuple[int, str | None]] = {}
    for members in ports.values():
        ordered = sorted(members, key=lambda one: str(one["pci"]))
        for half, one in enumerate(ordered):
            other = ordered[1 - half]["interface"] if len(ordered) == 2 else None
            places[one["interface"]] = (half, other)
    return [
        {
            **one,
            "half": places.get(one["interface"], (None, None))[0],
            "twin": places.get(one["interface"], (None, None))[1],
        }
        for one in found
    ]


def _why_not(one: Device, wanted: Wanted) -> str:
    """Why a device can be no rail; '' when it can."""
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
    if one["kind"] == "soft" and not wanted.soft:
        return "is software RDMA, for tests"
    if one["carrier"] is None:
        return "is down, so nobody knows whether a cable is in it"
    return "" if one["carrier"] else "has no link: no cable, or the other end is off"


def _order(one: Device) -> tuple[int, int, str]:
    port = 99 if one["port"] is None else one["port"]
    return (port, 99 if one["half"] is None else one["half"], str(one["interface"]))


def choose(found: Sequence[Device], wanted: Wanted) -> tuple[list[dict[str, Any]], list[str]]:
    """The rails in order, port 0 and its first half first, and sentences about what stands in the way."""
    problems: list[str] = []
    for name in wanted.interfaces:
        one = next((one for one in found if one["interface"] == name), None)
        if one is None or not one["exists"]:
            problems.append(
                f"dgx_vllm_fabric_interfaces names {name}, which this machine does not have; correct it."
            )
        elif _why_not(one, wanted):
            problems.append(
                f"{name} {_why_not(one, wanted)}, so it can be no rail; take it out of "
                "dgx_vllm_fabric_interfaces."
            )
    usable = [one for one in found if not _why_not(one, wanted)]
    if wanted.interfaces:
        usable.sort(key=lambda one: wanted.interfaces.index(one["interface"]))
    else:
        usable.sort(key=_order)
    chosen = {one["interface"] for one in usable}
    for one in usable:
        if one["kind"] == "nic" and one["twin"] is None:
            problems.append(
                f"{one['interface']} (port {one['port']}) has no second half on another PCIe root, so half "
                "of the port's "
                "bandwidth is missing; update the adapter's firmware and check lspci -d 15b3:."
            )
        elif one["kind"] == "nic" and one["twin"] not in chosen and not wanted.interfaces:
            twin = next(other for other in found if other["interface"] == one["twin"])
            problems.append(
                f"{one['interface']} is a rail, but {twin['interface']}, the other half of port "
                f"{one['port']}, "
                f"{_why_not(twin, wanted)}; bring it up (ip link set {twin['interface']} up) and run again."
            )
    if not usable and not problems:
        problems.append(_nothing(found, wanted))
    rails = [
        {
            "rail": number,
            "interface": one["interface"],
            "rdma": one["rdma"],
            "rdma_port": 1,
            "port": number // 2 if one["port"] is None else one["port"],
            "half": number % 2 if one["half"] is None else one["half"],
            "mac": one["mac"],
        }
        for number, one in enumerate(usable)
    ]
    return rails, problems


def _nothing(found: Sequence[Device], wanted: Wanted) -> str:
    adapters = [one for one in found if one["kind"] in ("nic", "soft")]
    if not adapters:
        return "No ConnectX adapter is visible; check lspci -d 15b3: and that the driver mlx5_core is loaded."
    reasons = "; ".join(f"{one['interface'] or one['rdma']} {_why_not(one, wanted)}" for one in adapters)
    return (
        f"No interface can be a rail: {reasons}; put a cable into one port and bring its two interfaces up."
    )


def collect(wanted: Wanted, root: Path = Path("/"), runner: Runner = run) -> dict[str, Any]:
    """Everything about the fabric of this node that can be read without changing it."""
    owned = sysfs.addresses(runner)
    kept = sysfs.management(root, owned, wanted.management_addresses)
    found = twins(
        [
            {**one, "management": one["interface"] in kept}
            for one in sysfs.devices(root, owned, wanted.interfaces)
        ]
    )
    rails, problems = choose(found, wanted)
    return {
        "devices": found,
        "rails": rails,
        "problems": problems,
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
    rails: int = 0,
    addresses: Sequence[str] = (),
    timeout: float = 0,
    reader: Callable[[Wanted], dict[str, Any]] = collect,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """`collect` every second until `rails` rails and all `addresses` are there or `timeout` s are over.

    A link takes a moment to come up, and its address comes after it.
    """
    left = timeout
    found = reader(wanted)
    while left > 0 and (len(found["rails"]) < rails or not set(addresses) <= _on_rails(found)):
        sleep(1)
        left -= 1
        found = reader(wanted)
    return found


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
