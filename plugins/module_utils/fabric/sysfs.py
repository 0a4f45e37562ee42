"""RDMA devices and their network interfaces as the kernel shows them; nothing here is derived from a name.

Layout as in the kernel's Documentation/ABI (sysfs-class-infiniband, sysfs-class-net) and linux/pci: a device of
/sys/class/infiniband points at its PCI function, whose net/ folder holds the interface. Every reader takes the
root directory (`/` on a node, a temporary tree in a test); what cannot be read is None or empty.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text

VENDOR = "0x15b3"
"""PCI vendor of Mellanox/NVIDIA network adapters."""

MODULES = ("mlx5_core", "mlx5_ib", "ib_uverbs", "rdma_cm", "rdma_ucm", "ib_umad", "rdma_rxe")
_PCI = re.compile(r"^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.([0-9a-f])$")
_PHYSICAL = re.compile(r"^p(\d+)$")
_EMPTY_GID = "0000:0000:0000:0000:0000:0000:0000:0000"


def line(path: Path) -> str:
    """The file's text without the line break; '' if it cannot be read (reading an attribute may fail)."""
    return read_text(path).strip()


def number(path: Path) -> int | None:
    """The file's number; None when it has none."""
    try:
        return int(line(path))
    except ValueError:
        return None


def entries(folder: Path) -> list[str]:
    """Names in a folder, sorted; [] when it is not there."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def _link_name(path: Path) -> str:
    """Name of what a link points at; '' if it is not a link."""
    try:
        return path.resolve().name if path.is_symlink() else ""
    except OSError:
        return ""


def addresses(runner: Runner, version: int = 4) -> dict[str, list[str]]:
    """Interface -> its addresses of one IP version with their lengths, from iproute2."""
    done = runner(["ip", "-json", f"-{version}", "address", "show"])
    try:
        links = json.loads(done.stdout) if done.rc == 0 else []
    except ValueError:
        links = []
    family = "inet" if version == 4 else "inet6"
    return {
        str(link.get("ifname")): [
            f"{info['local']}/{info['prefixlen']}"
            for info in link.get("addr_info", [])
            if info.get("family") == family
        ]
        for link in links
        if isinstance(link, dict)
    }


def gids(port: Path) -> list[dict[str, Any]]:
    """The filled entries of a port's GID table: index, type (RoCE v2 …), gid, interface, the IPv4 address in it."""
    filled = []
    for name in sorted(entries(port / "gids"), key=lambda text: int(text) if text.isdigit() else -1):
        gid = line(port / "gids" / name)
        if not gid or gid == _EMPTY_GID or not name.isdigit():
            continue
        try:
            mapped = ipaddress.IPv6Address(gid).ipv4_mapped
        except ValueError:
            mapped = None
        filled.append(
            {
                "index": int(name),
                "type": line(port / "gid_attrs/types" / name),
                "gid": gid,
                "interface": line(port / "gid_attrs/ndevs" / name),
                "address": str(mapped) if mapped else "",
            }
        )
    return filled


def interface(root: Path, name: str, owned: dict[str, list[str]]) -> dict[str, Any]:
    """One network interface. `carrier` is None while it is down: the kernel does not tell then. Speed in Mb/s."""
    folder = root / "sys/class/net" / name
    carrier, speed = number(folder / "carrier"), number(folder / "speed")
    return {
        "interface": name,
        "exists": bool(name) and folder.exists(),
        "mac": line(folder / "address").lower(),
        "carrier": None if carrier is None else carrier == 1,
        "operstate": line(folder / "operstate"),
        "speed_mbit": speed if speed and speed > 0 else None,
        "mtu": number(folder / "mtu"),
        "master": _link_name(folder / "master") or None,
        "addresses": owned.get(name, []),
    }


def _function(root: Path, device: Path) -> dict[str, Any]:
    """The PCI function of a device; empty values for what is not a PCI function."""
    try:
        pci = device.resolve().name
    except OSError:
        pci = ""
    match = _PCI.match(pci)
    return {
        "pci": pci if match else "",
        "function": int(match.group(1), 16) if match else None,
        "vendor": line(device / "vendor"),
        "virtual": (device / "physfn").exists(),
        "pcie_width": number(device / "current_link_width"),
        "pcie_max_width": number(device / "max_link_width"),
        "pcie_speed": line(device / "current_link_speed"),
    }


def _physical_port(root: Path, name: str, function: int | None) -> int | None:
    match = _PHYSICAL.match(line(root / "sys/class/net" / name / "phys_port_name"))
    return int(match.group(1)) if match else function


def _own_interface(root: Path, device: Path, rdma: Path) -> str:
    """The interface of an RDMA device: of its PCI function, of soft-RoCE's parent, or of its first GID."""
    names = entries(device / "net")
    physical = [
        name for name in names if _PHYSICAL.match(line(root / "sys/class/net" / name / "phys_port_name"))
    ]
    if physical or len(names) == 1:
        return (physical or names)[0]
    return line(rdma / "parent") or line(rdma / "ports/1/gid_attrs/ndevs/0")


def rdma_device(root: Path, name: str, owned: dict[str, list[str]]) -> dict[str, Any]:
    """One device of /sys/class/infiniband with its interface."""
    rdma = root / "sys/class/infiniband" / name
    device, port = rdma / "device", rdma / "ports/1"
    function = _function(root, device)
    own = _own_interface(root, device, rdma)
    if line(rdma / "parent") or not function["vendor"]:
        kind = "soft"
    elif function["vendor"] == VENDOR:
        kind = "virtual" if function["virtual"] else "nic"
    else:
        kind = "foreign"
    return {
        "rdma": name,
        "kind": kind,
        **function,
        **interface(root, own, owned),
        "port": _physical_port(root, own, function["function"]) if kind == "nic" else None,
        "firmware": line(rdma / "fw_ver"),
        "board": line(rdma / "board_id"),
        "rdma_state": line(port / "state"),
        "rdma_phys_state": line(port / "phys_state"),
        "rate": line(port / "rate"),
        "link_layer": line(port / "link_layer"),
        "gids": gids(port),
    }


def bare_nic(root: Path, name: str, owned: dict[str, list[str]]) -> dict[str, Any]:
    """An interface without an RDMA device: the adapter before its driver mlx5_ib is loaded, or a named one."""
    function = _function(root, root / "sys/class/net" / name / "device")
    nic = function["vendor"] == VENDOR and not function["virtual"]
    return {
        "rdma": "",
        "kind": "nic" if nic else "plain",
        **function,
        **interface(root, name, owned),
        "port": _physical_port(root, name, function["function"]) if nic else None,
        "firmware": "",
        "board": "",
        "rdma_state": "",
        "rdma_phys_state": "",
        "rate": "",
        "link_layer": "",
        "gids": [],
    }


def devices(root: Path, owned: dict[str, list[str]], named: Sequence[str]) -> list[dict[str, Any]]:
    """All RDMA devices, the adapter's interfaces that have none, and the interfaces in `named`."""
    found = [rdma_device(root, name, owned) for name in entries(root / "sys/class/infiniband")]
    seen = {device["interface"] for device in found}
    for name in entries(root / "sys/class/net"):
        if name not in seen and (
            name in named or line(root / "sys/class/net" / name / "device/vendor") == VENDOR
        ):
            found.append(bare_nic(root, name, owned))
    return found


def modules(root: Path) -> dict[str, bool]:
    """Whether each RDMA module is loaded or built in."""
    loaded = {text.split()[0] for text in read_text(root / "proc/modules").splitlines() if text.strip()}
    return {name: name in loaded or (root / "sys/module" / name).is_dir() for name in MODULES}
