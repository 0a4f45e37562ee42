#!/usr/bin/python
"""Read the ConnectX-7 fabric of a node: devices, rails, and what must never become a rail."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_fabric
short_description: Read the fabric of a GB10 node
version_added: 0.2.0
description:
  - Finds the adapter's interfaces through sysfs by PCI vendor, function and port, never by their names. On a GB10 each
    port has two PCIe functions, and so two interfaces.
  - Chooses the rails (both functions of each cabled port) and says what stands in the way of others.
  - Changes nothing and runs in check mode. Needs nothing on the node but its Python (3.9 or newer) and iproute2.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  interfaces:
    description:
      - Interfaces that are to be the rails, in this order. Empty to take the ports that have a link on a function.
      - An interface of the management network is refused even if it is named here.
    type: list
    elements: str
    default: []
  management_addresses:
    description:
      - Addresses or names by which the node is administered, such as C(ansible_host). Their interfaces cannot be rails.
      - Names are resolved on the node.
      - Interfaces of default routes and of open ssh sessions cannot be rails either, named here or not.
    type: list
    elements: str
    default: []
  rails:
    description: Number of planned rails. If they need all ports, a port without a cable keeps its place.
    type: int
    default: 0
  addresses:
    description: Addresses with their lengths to wait for, on any of the rails.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for the links of O(rails) and for O(addresses) before what is there is returned.
    type: int
    default: 0
attributes:
  check_mode:
    description: Can run in check mode and return the same data without changing the node.
    support: full
  diff_mode:
    description: Reports what changed. This module changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Read the fabric
  dgx_vllm.spark.dgx_vllm_fabric:
    management_addresses: ["{{ ansible_host }}"]
  register: fabric

- name: Show the rails
  ansible.builtin.debug:
    msg: "{{ fabric.fabric.rails | map(attribute='interface') }}"
"""

RETURN = r"""
fabric:
  description: The fabric of the node.
  returned: always
  type: dict
  contains:
    devices:
      description:
        - Every RDMA device, and every adapter interface that has none, with V(rdma), V(interface), V(kind) (V(nic),
          V(soft), V(virtual), V(foreign) or V(plain)), V(pci), V(port), V(half) (which function of its port),
          V(twin) (the interface of the other function), V(carrier) (null while the interface is down), V(speed_mbit),
          V(mtu), V(mac), V(master), V(addresses), V(pcie_width), V(pcie_max_width), V(firmware), V(rdma_state),
          V(rate), V(gids) and V(management).
      type: list
      elements: dict
      returned: always
    rails:
      description:
        - The rails in order, each with V(rail) (its number in the plan), V(interface), V(link) (false for a function
          without one), V(rdma), V(rdma_port), V(port), V(half) and V(mac).
      type: list
      elements: dict
      returned: always
    problems:
      description: Sentences about interfaces that cannot be used as they are.
      type: list
      elements: str
      returned: always
    refused:
      description: Those of RV(fabric.problems) about interfaces that are named as rails and cannot be.
      type: list
      elements: str
      returned: always
    management:
      description: Interfaces that carry the management network and so cannot be rails, and what they stand on.
      type: list
      elements: str
      returned: always
    addresses:
      description: IPv4 addresses with their lengths, by interface.
      type: dict
      returned: always
    modules:
      description: Whether each RDMA kernel module is loaded or built in.
      type: dict
      returned: always
    uverbs:
      description: Names of the device files in /dev/infiniband through which programs reach RDMA.
      type: list
      elements: str
      returned: always
    down:
      description: Interfaces of the adapter that are down, so that they do not show whether they have a cable.
      type: list
      elements: str
      returned: always
    tools:
      description: Whether C(ping), C(ib_write_bw), C(netplan) and C(modprobe) are installed.
      type: dict
      returned: always
    netplan_elsewhere:
      description: Other netplan files by the rail that they configure, too.
      type: dict
      returned: always
    netplan:
      description: V(text) and V(mode) of the rails' netplan file, null without one.
      type: dict
      returned: always
    modules_at_boot:
      description: Kernel modules that the role's own file loads at boot.
      type: list
      elements: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import Options, collect_rails


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "str", "default": []},
            "management_addresses": {"type": "list", "elements": "str", "default": []},
            "rails": {"type": "int", "default": 0},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    options = Options(
        tuple(module.params["interfaces"]),
        tuple(module.params["management_addresses"]),
        module.params["rails"],
    )
    facts = collect_rails(options, module.params["addresses"], module.params["timeout"])
    module.exit_json(changed=False, fabric=facts)


if __name__ == "__main__":
    main()
