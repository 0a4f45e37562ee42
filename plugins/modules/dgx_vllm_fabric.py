#!/usr/bin/python
"""Read the ConnectX-7 fabric of a node: devices, halves, rails, and what must never become a rail."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_fabric
short_description: Read the fabric of a GB10 node
version_added: 0.2.0
description:
  - Finds the adapter's half-ports through sysfs by PCI vendor, function and port, never by their names.
  - Chooses the rails (both half-ports of each cabled port) and says what stands in the way of others.
  - Changes nothing and runs in check mode. Needs nothing on the node but its Python (3.9 or newer) and iproute2.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  interfaces:
    description:
      - Interfaces that shall be the rails, in this order. Empty to take the ports in which a half has a link.
      - An interface of the management network is refused even when it is named here.
    type: list
    elements: str
    default: []
  management_addresses:
    description:
      - Addresses or names by which the node is administered, such as C(ansible_host). Their interfaces can be no rails.
      - Names are resolved on the node.
      - Interfaces of default routes and of open ssh sessions never can, named here or not.
    type: list
    elements: str
    default: []
  rails:
    description: Planned rails. Where they need all ports, a port without a cable keeps its place.
    type: int
    default: 0
  addresses:
    description: Addresses with their lengths to wait for, on any of the rails.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for the links of I(rails) and for I(addresses) before what is there is returned.
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
        - Every RDMA device, and every adapter interface that has none, with C(rdma), C(interface), C(kind) (V(nic),
          V(soft), V(virtual), V(foreign) or V(plain)), C(pci), C(port), C(half), C(twin) (the other half's interface),
          C(carrier) (null while the interface is down), C(speed_mbit), C(mtu), C(mac), C(master), C(addresses),
          C(pcie_width), C(pcie_max_width), C(firmware), C(rdma_state), C(rate), C(gids) and C(management).
      type: list
      elements: dict
      returned: always
    rails:
      description:
        - The rails in order, each with C(rail) (its number in the plan), C(interface), C(link) (false for a half that
          is out), C(rdma), C(rdma_port), C(port), C(half) and C(mac).
      type: list
      elements: dict
      returned: always
    problems:
      description: Sentences about half-ports that cannot be used as they are.
      type: list
      elements: str
      returned: always
    refused:
      description: Those of I(problems) about interfaces that are named as rails and can be none.
      type: list
      elements: str
      returned: always
    management:
      description: Interfaces that can be no rail, and what they stand on.
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
    memlock:
      description: Limit of locked memory of this process (C(self)) and of Docker's service (C(docker)).
      type: dict
      returned: always
    down:
      description: Half-ports that are down, so that nobody knows whether a cable is in them.
      type: list
      elements: str
      returned: always
    tools:
      description: Whether C(ping), C(ib_write_bw), C(netplan) and C(modprobe) are installed.
      type: dict
      returned: always
    netplan:
      description: C(text) and C(mode) of the rails' netplan file, null without one.
      type: dict
      returned: always
    modules_at_boot:
      description: Kernel modules that the role's own file loads at boot.
      type: list
      elements: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import Wanted, collect_rails


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
    given = module.params
    wanted = Wanted(tuple(given["interfaces"]), tuple(given["management_addresses"]), given["rails"])
    facts = collect_rails(wanted, given["addresses"], given["timeout"])
    module.exit_json(changed=False, fabric=facts)


if __name__ == "__main__":
    main()
