"""The role's templates for the rails of one node, with Jinja's settings of Ansible."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import THRESHOLDS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.netplan import addressed_rails
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from helpers.ansible_run import ROOT


def netplan_text(
    names: Sequence[str],
    addresses: Sequence[str],
    management: Sequence[str] = (),
    mtu: int = THRESHOLDS["mtu"],
    renderer: str = "networkd",
) -> str:
    """Content of /etc/netplan/40-cx7.yaml for these interfaces and their addresses."""
    facts = {"rails": [{"interface": name} for name in names], "management": management}
    rails = addressed_rails(facts, {"rails": [{"address": address} for address in addresses]})
    variables = {
        "__dgx_vllm_netplan_rails": rails,
        "__dgx_vllm_fabric_mtu": mtu,
        "__dgx_vllm_fabric": {"renderer": renderer},
    }
    return _template("40-cx7.yaml.j2").render(variables)


def arp_text(names: Sequence[str]) -> str:
    """Content of /etc/sysctl.d/90-dgx-vllm.conf for these interfaces."""
    rails = [{"interface": name} for name in names]
    return _template("90-dgx-vllm.conf.j2").render({"__dgx_vllm_netplan_rails": rails})


def _template(name: str) -> Template:
    jinja = Environment(
        loader=FileSystemLoader(ROOT / "roles/dgx_vllm/templates"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    return jinja.get_template(name)
