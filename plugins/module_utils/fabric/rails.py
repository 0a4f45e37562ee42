"""From what the kernel shows to rails: which two PCIe functions are one port, and which can carry the fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import SEARCH_PATH, Runner, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import arp, netplan, sysfs
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.management import management
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under

Device = Mapping[str, Any]

TOOLS = ("ping", "ib_write_bw", "netplan", "modprobe")
MODULES_FILE = "/etc/modules-load.d/dgx-vllm.conf"


NO_ADAPTER = (
    "No ConnectX adapter is visible; plug the cable in at both ends, as DGX OS turns the adapter off without one. "
    "If it stays away: lspci -d 15b3: shows the adapter, lsmod its driver mlx5_core."
)


class Options(NamedTuple):
    """The module's parameters, and what the role knows from its last run.

    `rails` is how many the plan has, 0 if there is no plan; `known` are the rails' interfaces in their order as the
    role's netplan file has them.
    """

    interfaces: tuple[str, ...] = ()
    management_addresses: tuple[str, ...] = ()
    rails: int = 0
    known: tuple[str, ...] = ()


def twins(devices: Sequence[Device]) -> list[dict[str, Any]]:
    """Every device with its `half` (0 or 1: which function of its port it is) and the interface of its `twin`.

    Twins are two functions of the adapter with the same port and PCI function number on different PCI buses: on
    a GB10 the two functions of a port are on two PCIe roots (0000:01:00.0 and 0002:01:00.0 are both port 0).
    """
    ports: dict[tuple[int, int], list[Device]] = {}
    for device in devices:
        if device["kind"] == "nic" and device["port"] is not None and device["function"] is not None:
            ports.setdefault((device["port"], device["function"]), []).append(device)
    slots = sorted({_slot(device) for members in ports.values() for device in members})
    places: dict[str, tuple[int, str | None]] = {}
    for members in ports.values():
        ordered = sorted(members, key=lambda device: str(device["pci"]))
        for half, device in enumerate(ordered):
            other = ordered[1 - half]["interface"] if len(ordered) == 2 else None
            places[device["interface"]] = (half if other else _half_alone(device, slots), other)
    return [
        {
            **device,
            "half": places.get(device["interface"], (None, None))[0],
            "twin": places.get(device["interface"], (None, None))[1],
        }
        for device in devices
    ]


def _slot(device: Device) -> str:
    return str(device["pci"]).rpartition(".")[0]


def _half_alone(device: Device, slots: Sequence[str]) -> int:
    """`half` of a function without a twin: by the slots of the others, or by its PCI domain if it is the only one."""
    if len(slots) > 1:
        return min(slots.index(_slot(device)), 1)
    return int(not str(device["pci"]).startswith("0000:"))


def _unfit(device: Device, options: Options) -> str:
    """Why a device cannot be a rail, link or not; '' if it can."""
    if device["management"]:
        return "carries the management network"
    if device["kind"] == "virtual":
        return "is a virtual function"
    if device["kind"] == "foreign":
        return "is not a ConnectX adapter"
    if device["master"]:
        return f"is part of {device['master']}; a bond or bridge defeats RDMA"
    if device["interface"] in options.interfaces:
        return ""
    if options.interfaces:
        return "is not in dgx_vllm_fabric_interfaces"
    return "is software RDMA, for tests" if device["kind"] == "soft" else ""


def _linkless(device: Device) -> str:
    """Why no packet passes; '' if the link is there."""
    if device["carrier"] is None:
        return "is down, so it does not show whether it has a cable"
    return "" if device["carrier"] else "has no link: no cable, or the other end is off"


def _raise_it(device: Device) -> str:
    if device["carrier"] is None:
        return f"bring it up (ip link set {device['interface']} up) and run again"
    return "unplug the cable at both ends, wait a few seconds and plug it in again"


def _places(able: Sequence[Device], options: Options) -> dict[int, Device]:
    """Rail -> device: two rails per cabled port, so that a function without a link keeps its number.

    Rails that the role configured keep their numbers, whichever of them this machine shows now. Otherwise the cabled
    ports are those with a link on at least one function, or all of them if the plan needs all.
    """
    if options.interfaces:
        return {options.interfaces.index(device["interface"]): device for device in able}
    if _stay(able, options):
        return {
            options.known.index(device["interface"]): device
            for device in able
            if device["interface"] in options.known
        }
    functions = [device for device in able if device["port"] is not None]
    every = sorted({device["port"] for device in functions})
    cabled = sorted({device["port"] for device in functions if device["carrier"]})
    ports = every if 2 * len(every) <= options.rails else cabled
    places = {
        2 * ports.index(device["port"]) + (device["half"] or 0): device
        for device in functions
        if device["port"] in ports
    }
    others = sorted(
        (device for device in able if device["port"] is None and device["carrier"]),
        key=lambda device: str(device["interface"]),
    )
    return {**places, **dict(enumerate(others, len(places)))}


def _stay(able: Sequence[Device], options: Options) -> bool:
    """Whether the known rails still are the rails: they have a link, or no other interface has one.

    A cable that was moved to the other port makes rails of that port's functions.
    """
    if not options.known or options.rails not in (0, len(options.known)):
        return False
    linked = {device["interface"] for device in able if device["carrier"] and device["port"] is not None}
    return bool(linked & set(options.known)) or (
        not linked and any(device["interface"] in options.known for device in able)
    )


def surplus(devices: Sequence[Device], options: Options) -> list[str]:
    """A sentence about cables in more ports than the plan has; the role cannot tell which of them is the fabric's."""
    able = [device for device in devices if not _unfit(device, options) and device["exists"]]
    if options.interfaces or not options.rails or _stay(able, options):
        return []
    functions = sorted(
        (device for device in able if device["port"] is not None),
        key=lambda device: (device["port"], device["half"] or 0),
    )
    linked = [device for device in functions if device["carrier"]]
    ports = sorted({device["port"] for device in linked})
    if 2 * len(ports) <= options.rails:
        return []
    first = [device["interface"] for device in functions if device["port"] == ports[0]]
    names = ", ".join(device["interface"] for device in linked)
    return [
        f"Ports {' and '.join(map(str, ports))} have a link ({names}), but {options.rails} rails are planned; name "
        f"those of the fabric, as `dgx_vllm_fabric_interfaces: [{', '.join(first)}]`, or write "
        f"`dgx_vllm_fabric_ports: {len(ports)}` if all cables are the fabric's."
    ]


def absent(devices: Sequence[Device], options: Options) -> list[str]:
    """A sentence if the machine shows no adapter at all and none is named: no package changes that."""
    visible = [device for device in devices if device["kind"] != "plain"]
    return [] if options.interfaces or visible or not options.rails else [NO_ADAPTER]


def refused(devices: Sequence[Device], options: Options) -> list[str]:
    """Sentences about interfaces that are named as rails and cannot be; no cable and no package changes that."""
    sentences = []
    for name in options.interfaces:
        device = next((device for device in devices if device["interface"] == name), None)
        if device is None or not device["exists"]:
            sentences.append(
                f"dgx_vllm_fabric_interfaces names {name}, which this machine does not have: plug the cable in at both "
                "ends, as DGX OS turns the adapter off without one, or correct the name."
            )
        elif _unfit(device, options):
            sentences.append(
                f"{name} {_unfit(device, options)}, so it cannot be a rail; remove it from dgx_vllm_fabric_interfaces."
            )
    return sentences


def choose(
    devices: Sequence[Device], options: Options, refusals: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rails in order, port 0 and its first function first, and sentences about what stands in the way.

    `refusals` are those of `refused`, and come first.
    A function of a cabled port without a `link` is a rail too: it has its place in the plan and in netplan's file.
    """
    problems = [*refusals]
    able = [device for device in devices if not _unfit(device, options) and device["exists"]]
    placed = sorted(_places(able, options).items())
    linked = {device["interface"] for _, device in placed if device["carrier"]}
    for _, device in placed:
        problems += _problems(device, devices, options, linked)
    if not placed and not problems:
        problems.append(_nothing(devices, options))
    rails = [
        {
            "rail": number,
            "interface": device["interface"],
            "link": bool(device["carrier"]),
            "rdma": device["rdma"],
            "rdma_port": 1,
            "port": number // 2 if device["port"] is None else device["port"],
            "half": number % 2 if device["half"] is None else device["half"],
            "mac": device["mac"],
        }
        for number, device in placed
    ]
    return rails, problems


def _problems(device: Device, devices: Sequence[Device], options: Options, linked: set[str]) -> list[str]:
    name, twin = (
        device["interface"],
        next((other for other in devices if other["interface"] == device["twin"]), None),
    )
    sentences = []
    if not device["carrier"]:
        which = (
            f"{name}, the other PCIe function of port {device['port']}," if device["twin"] in linked else name
        )
        sentences.append(f"{which} {_linkless(device)}; {_raise_it(device)}.")
    if device["kind"] == "nic" and twin is None:
        sentences.append(
            f"{name} (port {device['port']}) has no second PCIe function on another root, so half of the port's "
            "bandwidth is missing; update the adapter's firmware and check lspci -d 15b3:."
        )
    elif twin is not None and not options.interfaces and _unfit(twin, options):
        sentences.append(
            f"{name} is a rail, but {twin['interface']}, the other function of port {device['port']}, "
            f"{_unfit(twin, options)}, so half of the port's bandwidth is missing."
        )
    return sentences


def _nothing(devices: Sequence[Device], options: Options) -> str:
    adapters = [device for device in devices if device["kind"] in ("nic", "soft")]
    if not adapters:
        return NO_ADAPTER
    reasons = "; ".join(
        f"{device['interface'] or device['rdma']} {_unfit(device, options) or _linkless(device)}"
        for device in adapters
    )
    return (
        f"No interface can be a rail: {reasons}; put a cable into one port and bring its two interfaces up."
    )


def collect(options: Options, root: Path = Path("/"), runner: Runner = run) -> dict[str, Any]:
    """Everything about the fabric of this node that can be read without changing it."""
    owned = sysfs.addresses(runner)
    written = netplan.read(root)
    known = tuple(dict.fromkeys(name for name, _ in netplan.given(written["text"])))
    options = options._replace(known=known)
    protected, problem = management(root, owned, options.management_addresses, runner)
    devices = twins(
        [
            {**device, "management": device["interface"] in protected}
            for device in sysfs.devices(root, owned, options.interfaces)
        ]
    )
    refusals = [*refused(devices, options), *surplus(devices, options), *absent(devices, options)]
    rails, problems = choose(devices, options, refusals)
    names = [rail["interface"] for rail in rails]
    return {
        "devices": devices,
        "rails": rails,
        "problems": [*([problem] if problem else []), *problems],
        "refused": refusals,
        "management": sorted(name for name in protected if name != "lo"),
        "addresses": {name: own for name, own in owned.items() if own},
        "modules": sysfs.modules(root),
        "uverbs": uverbs(root),
        "down": waiting(devices, options),
        "tools": tools(root),
        "netplan": written,
        "netplan_elsewhere": netplan.elsewhere(root, rails),
        "renderer": netplan.renderer(root),
        "arp": arp.read(root, names),
        "modules_at_boot": sysfs.line(under(root, MODULES_FILE)).splitlines(),
    }


def collect_rails(
    options: Options,
    addresses: Sequence[str] = (),
    timeout: float = 0,
    reader: Callable[[Options], dict[str, Any]] = collect,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """`collect` every second until all planned rails have a link and all `addresses` are there, at most `timeout` s.

    A link takes a moment to come up, and its address comes after it.
    """
    left = timeout
    facts = reader(options)
    while left > 0 and (_links(facts) < options.rails or not set(addresses) <= _on_rails(facts)):
        sleep(1)
        left -= 1
        facts = reader(options)
    return facts


def _links(facts: Mapping[str, Any]) -> int:
    return sum(1 for rail in facts["rails"] if rail["link"])


def _on_rails(facts: Mapping[str, Any]) -> set[str]:
    return {address for rail in facts["rails"] for address in facts["addresses"].get(rail["interface"], [])}


def waiting(devices: Sequence[Device], options: Options) -> list[str]:
    """Interfaces of the adapter that are down: the kernel tells whether a cable is in them only while they are up."""
    return sorted(
        device["interface"]
        for device in devices
        if device["kind"] in ("nic", "plain")
        and device["exists"]
        and device["carrier"] is None
        and not (device["management"] or device["master"])
        and device["interface"] in (options.interfaces or (device["interface"],))
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
