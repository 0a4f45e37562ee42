"""A machine's /sys and /proc in a temporary folder, with the layout (links included) of the kernel's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import Options, collect

# PCI address, interface and RDMA device as a DGX Spark names them; the functions of a port are in PCI domains 0 and 2.
SPARK = {
    (0, 0): ("0000:01:00.0", "enp1s0f0np0", "rocep1s0f0"),
    (0, 1): ("0002:01:00.0", "enP2p1s0f0np0", "roceP2p1s0f0"),
    (1, 0): ("0000:01:00.1", "enp1s0f1np1", "rocep1s0f1"),
    (1, 1): ("0002:01:00.1", "enP2p1s0f1np1", "roceP2p1s0f1"),
}
HEX = "0123456789abcdef"


def mapped_gid(address: str) -> str:
    a, b, c, d = (int(part) for part in address.split("/")[0].split("."))
    return f"0000:0000:0000:0000:0000:ffff:{a:02x}{b:02x}:{c:02x}{d:02x}"


class Machine:
    """`root` is the tree; `read` is what discovery makes of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.addresses: dict[str, list[str]] = {}
        self.names: dict[str, str] = {}
        self.connections: str | None = ""
        self.write("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n")
        self.write("proc/modules", "mlx5_ib 499712 0 - Live 0x0\nmlx5_core 3035136 1 mlx5_ib, Live 0x0\n")
        self.plain("enP7s7", "192.0.2.11/24", default_route=True)

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")

    def link(self, path: str, target: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(Path(path).parts) - 1)
        place.symlink_to(up + target)

    def interface(self, name: str, device: str, **attributes: Any) -> None:
        """/sys/class/net/NAME as a link into the device's folder, as in the kernel."""
        folder = f"{device}/net/{name}"
        given = {
            "carrier": 1,
            "speed": 200000,
            "mtu": 9000,
            "operstate": "up",
            "address": "02:00:00:00:00:01",
        }
        for key, value in {**given, **attributes}.items():
            if value is not None:
                self.write(f"{folder}/{key}", str(value))
        self.link(f"sys/class/net/{name}", folder)
        if device.startswith("sys/devices/pci"):
            self.link(f"{folder}/device", device)

    def plain(self, name: str, address: str = "", default_route: bool = False) -> None:
        device = f"sys/devices/pci0007:00/{name}-parent"
        self.write(f"{device}/vendor", "0x10ec")
        self.interface(name, device, speed=10000, mtu=1500)
        if address:
            self.addresses[name] = [address]
        if default_route:
            route = self.root / "proc/net/route"
            text = f"{name}\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\n"
            route.write_text(route.read_text() + text)

    def half(
        self,
        port: int,
        half: int,
        *,
        names: tuple[str, str] | None = None,
        address: str = "",
        gid: str | None = "RoCE v2",
        width: int = 4,
        firmware: str = "28.45.4028",
        rdma: bool = True,
        **attributes: Any,
    ) -> str:
        """One PCIe function of a port; `names` are those of interface and RDMA device. Returns the interface."""
        pci, name, device_name = SPARK[port, half]
        if names:
            name, device_name = names
        device = f"sys/devices/pci{pci[:4]}:00/{pci[:4]}:00:00.0/{pci}"
        for key, value in (("vendor", "0x15b3"), ("current_link_width", width), ("max_link_width", 16)):
            self.write(f"{device}/{key}", str(value))
        self.write(f"{device}/current_link_speed", "32.0 GT/s PCIe")
        mac = f"02:00:00:00:0{port}:0{half}"
        self.interface(name, device, phys_port_name=f"p{port}", **{"address": mac, **attributes})
        if address:
            self.addresses[name] = [address]
        if rdma:
            folder = f"{device}/infiniband/{device_name}"
            self.rdma(device_name, folder, device, name, address, gid, firmware)
        return name

    def rdma(
        self,
        device_name: str,
        folder: str,
        device: str,
        name: str,
        address: str,
        gid: str | None,
        firmware: str,
    ) -> None:
        self.write(f"{folder}/fw_ver", firmware)
        port = f"{folder}/ports/1"
        for key, value in (
            ("state", "4: ACTIVE"),
            ("phys_state", "5: LinkUp"),
            ("rate", "100 Gb/sec (4X EDR)"),
            ("link_layer", "Ethernet"),
            ("gids/0", "fe80:0000:0000:0000:0000:00ff:fe00:0001"),
            ("gid_attrs/types/0", "IB/RoCE v1"),
            ("gid_attrs/ndevs/0", name),
            ("gids/9", "0000:0000:0000:0000:0000:0000:0000:0000"),
        ):
            self.write(f"{port}/{key}", value)
        if address and gid:
            for index, kind in ((2, "IB/RoCE v1"), (3, gid)):
                self.write(f"{port}/gids/{index}", mapped_gid(address))
                self.write(f"{port}/gid_attrs/types/{index}", kind)
                self.write(f"{port}/gid_attrs/ndevs/{index}", name)
        self.link(f"sys/class/infiniband/{device_name}", folder)
        if device:
            self.link(f"{folder}/device", device)

    def soft(self, name: str, device_name: str, address: str) -> None:
        """soft-RoCE over a plain interface: a virtual device that names its parent interface."""
        folder = f"sys/devices/virtual/infiniband/{device_name}"
        self.rdma(device_name, folder, "", name, address, "RoCE v2", "")
        self.write(f"{folder}/parent", name)
        self.addresses[name] = [address]

    def port(self, port: int, addresses: Sequence[str] = (), **more: Any) -> list[str]:
        """Both functions of a port."""
        given = list(addresses) or ["", ""]
        return [self.half(port, half, address=given[half], **more) for half in (0, 1)]

    def runner(self, argv: Sequence[str]) -> Completed:
        if list(argv[:2]) == ["ip", "-json"] and argv[2] in ("-4", "-6"):
            family = {"-4": "inet", "-6": "inet6"}[argv[2]]
            found = [
                {
                    "ifname": name,
                    "addr_info": [
                        {"family": family, "local": one.split("/")[0], "prefixlen": int(one.split("/")[1])}
                        for one in own
                        if (":" in one) == (family == "inet6")
                    ],
                }
                for name, own in self.addresses.items()
            ]
            return Completed(0, json.dumps(found), "")
        if list(argv[:2]) == ["getent", "ahosts"] and argv[2] in self.names:
            return Completed(0, f"{self.names[argv[2]]} STREAM {argv[2]}\n", "")
        if argv[0] == "ss" and self.connections is not None:
            return Completed(0, self.connections, "")
        return Completed(MISSING, "", f"{argv[0]} is not installed")

    def read(self, *interfaces: str, management: Sequence[str] = (), rails: int = 0) -> dict[str, Any]:
        return collect(Options(interfaces, tuple(management), rails), self.root, self.runner)

    def device(self, name: str) -> dict[str, Any]:
        (device,) = (device for device in self.read()["devices"] if device["interface"] == name)
        return dict(device)
