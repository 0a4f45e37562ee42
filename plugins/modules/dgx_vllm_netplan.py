#!/usr/bin/python
"""Write and apply the rails' netplan file, with an automatic revert."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_netplan
short_description: Write and apply the netplan file of the fabric's rails
version_added: 0.2.0
description:
  - Writes C(/etc/netplan/40-cx7.yaml) with mode V(0600) and applies it.
  - A systemd timer reverts the change after O(timeout) seconds unless O(state=kept) comes before, so a node that can
    no longer be reached comes back by itself.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  state:
    description:
      - V(applied) writes and applies, V(kept) stops the timer, V(absent) removes the file and its addresses.
      - A file of somebody else at that path is kept, and put back by V(absent).
    type: str
    choices: [applied, kept, absent]
    default: applied
  content:
    description: The whole file, as templates/40-cx7.yaml.j2 of the role renders it.
    type: str
    default: ""
  live:
    description: Whether the rails are already as the file says. If not, an unchanged file is applied again.
    type: bool
    default: true
  timeout:
    description: Seconds until the change is reverted.
    type: int
    default: 180
attributes:
  check_mode:
    description: Can run in check mode and return what would change.
    support: full
  diff_mode:
    description: Shows the old and the new file.
    support: full
"""

EXAMPLES = r"""
- name: Configure the rails
  dgx_vllm.spark.dgx_vllm_netplan:
    content: "{{ lookup('ansible.builtin.template', '40-cx7.yaml.j2') }}"

- name: Keep the change
  dgx_vllm.spark.dgx_vllm_netplan:
    state: kept
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
  sample: /etc/netplan/40-cx7.yaml
"""

import shutil
from functools import partial
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import SEARCH_PATH, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan, netplan_apply


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["applied", "kept", "absent"], "default": "applied"},
            "content": {"type": "str", "default": ""},
            "live": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    root, slowly = Path("/"), partial(run, timeout=45)
    state, content = module.params["state"], module.params["content"]
    before = netplan.read(root)
    changed, after = False, content
    if state == "applied":
        changed = before != {"text": content, "mode": netplan.MODE} or not module.params["live"]
    elif state == "absent":
        changed, after = netplan.ours(before["text"]), ""
    if changed and state == "applied" and not shutil.which("netplan", path=SEARCH_PATH):
        commands = "; ".join(
            f"ip address add {address} dev {name}" for name, address in netplan.given(content)
        )
        module.fail_json(
            msg="netplan is not installed; install netplan.io, or set dgx_vllm_fabric_manage: false and give the rails "
            f"their addresses in the configuration of your network, now with {commands}."
        )
    try:
        if changed and not module.check_mode:
            if state == "applied":
                netplan_apply.apply(root, slowly, content, module.params["timeout"])
            else:
                netplan_apply.remove(root, slowly)
        elif state == "kept" and not module.check_mode:
            netplan_apply.keep(run)
    except (netplan_apply.ApplyError, OSError) as error:
        module.fail_json(msg=str(error))
    diff = {
        "before": before["text"] or "",
        "after": after,
        "before_header": netplan.PATH,
        "after_header": netplan.PATH,
    }
    module.exit_json(changed=changed, path=netplan.PATH, **({"diff": diff} if changed else {}))


if __name__ == "__main__":
    main()
