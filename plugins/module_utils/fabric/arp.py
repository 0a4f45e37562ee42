"""How the node answers ARP on its rails.

Both functions of a port are on one Ethernet segment, and Linux answers for any local address on any interface. A peer
then may learn the MAC address of the other function, and RoCE sends its packets there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.sysfs import number
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under

PATH = "/etc/sysctl.d/90-dgx-vllm.conf"
WANTED = {"arp_ignore": 1, "arp_announce": 2}
"""Answer only on the interface that has the address; ask with the address of the interface that asks."""


def read(root: Path, interfaces: Iterable[str]) -> dict[str, Any]:
    """`text` of the role's file, `live` (interface -> key -> its own value), and `weak`, the interfaces below WANTED.

    The kernel takes the larger one of an interface's own value and that of `all`. What it does not show is not weak.
    """
    live = {name: {key: _value(root, name, key) for key in WANTED} for name in interfaces}
    floor = {key: _value(root, "all", key) or 0 for key in WANTED}
    return {
        "text": read_text(under(root, PATH)) or None,
        "live": live,
        "weak": [
            name
            for name, values in live.items()
            if any(
                value is not None and max(value, floor[key]) < WANTED[key] for key, value in values.items()
            )
        ],
    }


def _value(root: Path, interface: str, key: str) -> int | None:
    return number(root / "proc/sys/net/ipv4/conf" / interface / key)
