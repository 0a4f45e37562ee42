"""The role's netplan template for the rails of one node, with Jinja's settings of Ansible."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import THRESHOLDS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.netplan import addressed_rails
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from helpers.ansible_run import ROOT


def netplan_text(
    names: Sequence[str],
    addresses: Sequence[str],
    management: Sequence[str] = (),
    mtu: int = THRESHOLDS["mtu"],
) -> str:
    """Content of /etc/netplan/40-cx7.yaml for these interfaces and their addresses."""
    facts = {"rails": [{"interface": name} for name in names], "management": management}
    rails = addressed_rails(facts, {"rails": [{"address": address} for address in addresses]})
    jinja = Environment(
        loader=FileSystemLoader(ROOT / "roles/dgx_vllm/templates"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    template = jinja.get_template("40-cx7.yaml.j2")
    return template.render(__dgx_vllm_netplan_rails=rails, __dgx_vllm_fabric_mtu=mtu)
