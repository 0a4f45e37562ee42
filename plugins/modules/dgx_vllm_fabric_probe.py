#!/usr/bin/python
"""Measure the rails of a node: pings to its peers, and bandwidth as server and as client."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_fabric_probe
short_description: Measure the rails of a GB10 node
version_added: 0.2.0
description:
  - Sends pings that fill a packet of the fabric's MTU on every rail to every peer, all at once.
  - Starts servers of C(ib_write_bw) that wait for one client each, and measures against those of other nodes.
  - Which node measures what and when comes from P(dgx_vllm.spark.fabric_gate_plan#filter).
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  pings:
    description: Tests with V(from), V(to), V(rail), V(to_rail), V(interface) and V(peer).
    type: list
    elements: dict
    default: []
  serve:
    description: Tests to wait for, with V(rdma), V(rdma_port), V(address) and V(port) as well.
    type: list
    elements: dict
    default: []
  write:
    description: Tests to measure, one after another, with the same keys.
    type: list
    elements: dict
    default: []
  mtu:
    description: Size of the packets of the pings.
    type: int
    default: 9000
  size:
    description: Bytes of a message of C(ib_write_bw).
    type: int
    default: 65536
  iterations:
    description: Messages of one measurement; 5000 take less than a tenth of a second at 100 Gb/s.
    type: int
    default: 5000
  timeout:
    description: Seconds that a server waits, and that one measurement may take.
    type: int
    default: 60
attributes:
  check_mode:
    description: Can run in check mode. It then measures nothing.
    support: full
  diff_mode:
    description: Reports what changed. This module changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Ping all peers
  dgx_vllm.spark.dgx_vllm_fabric_probe:
    pings: "{{ tests.pings }}"
"""

RETURN = r"""
pings:
  description: Each ping's V(from), V(to), V(rail), V(to_rail), what came back, V(plain_ok) and V(peer_mac).
  returned: always
  type: list
  elements: dict
bandwidth:
  description:
    - Each measurement's V(from), V(to), V(rail), V(to_rail), V(gbits), V(peak_gbits) and V(error).
    - A server that could not be started has no figures.
  returned: always
  type: list
  elements: dict
"""

from functools import partial
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import probe as fabric_probe

HEADERS = 28
"""Bytes of the IPv4 and ICMP headers in front of a ping's payload."""


def main() -> None:
    """Run the module."""
    tests = {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        argument_spec={
            "pings": tests,
            "serve": tests,
            "write": tests,
            "mtu": {"type": "int", "default": 9000},
            "size": {"type": "int", "default": 65536},
            "iterations": {"type": "int", "default": 5000},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options, root = module.params, Path("/")
    if module.check_mode:
        module.exit_json(changed=False, pings=[], bandwidth=[])
    size, iterations, timeout = options["size"], options["iterations"], options["timeout"]
    unserved = fabric_probe.serve(options["serve"], root, fabric_probe.detached, size, iterations, timeout)
    pings = fabric_probe.ping_all(options["pings"], run, options["mtu"] - HEADERS)
    bandwidth = fabric_probe.write_all(
        options["write"], root, partial(run, timeout=timeout), size, iterations
    )
    module.exit_json(changed=False, pings=pings, bandwidth=unserved + bandwidth)


if __name__ == "__main__":
    main()
