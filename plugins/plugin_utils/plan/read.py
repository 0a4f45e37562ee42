"""Read the variables of one host with their types; each wrong value is a sentence, and its default takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import kinds
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import setting_table as table
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan import addresses as fabric
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import DEFAULTS, SAME, Node

Origin = Callable[[Any], str]
"""Where in the inventory a value is written, as file:line; '' if that is not known."""


def no_origin(value: Any) -> str:
    """An Origin that knows no place."""
    return ""


def read_node(
    host: str, variables: Mapping[str, Any], mistakes: list[str], origin: Origin = no_origin
) -> Node:
    """The host as its `variables` describe it; sentences about wrong values are appended to `mistakes`."""
    read = _Reader(host, variables, mistakes, origin)
    return Node(
        host=host,
        management=str(variables.get("ansible_host") or ""),
        ssh_port=str(variables.get("ansible_port") or 22),
        replica=read.replica(),
        rank=read.optional_number("rank"),
        model=str(read.value("model") or ""),
        tensor_parallel_size=read.whole_number("tensor_parallel_size"),
        pipeline_parallel_size=read.whole_number("pipeline_parallel_size"),
        executor=read.choice("executor"),
        port=read.whole_number("port"),
        master_port=read.whole_number("master_port"),
        ray_port=read.whole_number("ray_port"),
        ray_dashboard_port=read.whole_number("ray_dashboard_port"),
        watch_port=read.whole_number("watch_port"),
        control_address=str(read.value("control_address")),
        fabric_kind=read.choice("fabric_kind"),
        fabric_prefix=str(read.value("fabric_prefix")),
        fabric_addresses=read.addresses(),
        fabric_index=read.optional_number("fabric_index"),
        fabric_ports=read.cabled_ports(),
        compared={name: read.value(name) for name in SAME if name not in Node._fields},
        origins=read.origins,
    )


class _Reader:
    """The variables of one host; `origins` holds the place of each one that was read and has one."""

    def __init__(self, host: str, variables: Mapping[str, Any], mistakes: list[str], origin: Origin) -> None:
        self.host = host
        self.variables = variables
        self.mistakes = mistakes
        self.origin = origin
        self.origins: dict[str, str] = {}

    def value(self, name: str) -> Any:
        """The value as it is written, or the default."""
        value = self.variables.get(f"dgx_vllm_{name}")
        if value is None:
            return DEFAULTS.get(name)
        if isinstance(value, int) and abs(value) >= 10**30:
            self.mistakes.append(f"{self.host}: dgx_vllm_{name} is {table.shown(value)}; correct it.")
            return DEFAULTS.get(name)
        place = self.origin(value)
        if place:
            self.origins[name] = place
        return value

    def place(self, name: str) -> str:
        return f" ({self.origins[name]})" if name in self.origins else ""

    def whole_number(self, name: str, kind: Optional[kinds.Kind] = None) -> int:
        kind = kind or table.TABLE[name]
        value = self.value(name)
        if kinds.fits(kind, value):
            return int(value)
        self.mistakes.append(
            f"{self.host}: dgx_vllm_{name} is {table.shown(value)}{self.place(name)}; set it to {kind.expected}."
        )
        return int(DEFAULTS[name])

    def optional_number(self, name: str) -> Optional[int]:
        """None for -1, which means that the plan chooses."""
        number = self.whole_number(name)
        return None if number < 0 else number

    def choice(self, name: str) -> str:
        choices = table.TABLE[name].choices
        value = str(self.value(name))
        if value in choices:
            return value
        self.mistakes.append(
            f"{self.host}: dgx_vllm_{name} is {value!r}{self.place(name)}; write one of {', '.join(choices)}."
        )
        return str(DEFAULTS[name])

    def replica(self) -> str:
        names = self.value("replica")
        if not isinstance(names, (list, tuple)):
            return str(names or "")
        self.mistakes.append(
            f"{self.host} is in {len(names)} replicas ({', '.join(map(str, names))}){self.place('replica')}, "
            "but a node has one GPU and serves one model; write one name, as `dgx_vllm_replica: chat`."
        )
        return str(names[0] or "") if names else ""

    def addresses(self) -> list[str]:
        values = self.value("fabric_addresses")
        place = self.place("fabric_addresses")
        if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
            self.mistakes.append(
                f"{self.host}: dgx_vllm_fabric_addresses{place} must be a list; write one address per rail, "
                "as `dgx_vllm_fabric_addresses: [198.51.100.1/26, 198.51.100.65/26]`."
            )
            return []
        addresses = []
        for value in values:
            try:
                addresses.append(fabric.read_address(value))
            except fabric.AddressError as error:
                self.mistakes.append(f"{self.host}: dgx_vllm_fabric_addresses{place}: {error}")
        return addresses

    def cabled_ports(self) -> int:
        ports = self.whole_number("fabric_ports", kinds.whole(1, 1024))
        if ports > fabric.MAX_PORTS:
            self.mistakes.append(
                f"{self.host}: dgx_vllm_fabric_ports is {ports}{self.place('fabric_ports')}, but the machine "
                "has two ports; write 1 or 2."
            )
        return min(ports, fabric.MAX_PORTS)
