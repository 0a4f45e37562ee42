#!/usr/bin/python
"""Load the rules that keep strangers from the ports of dgx-vllm, with an automatic revert."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_firewall
short_description: Load the nftables rules of the ports of dgx-vllm
version_added: 0.2.0
description:
  - Loads C(table inet dgx_vllm). No other table is read or changed, neither Docker's nor that of C(nftables.service).
  - A systemd timer takes the rules back after O(timeout) seconds unless O(state=kept) comes before, so a node that can
    no longer be reached comes back by itself, and so does one that is rebooted meanwhile.
  - The rules lie in C(/etc/dgx-vllm/firewall.nft), and C(dgx-vllm-firewall.service) loads them at boot.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  state:
    description: V(applied) loads, V(kept) stops the timer and writes the files, V(absent) removes all of it.
    type: str
    choices: [applied, kept, absent]
    default: applied
  rules:
    description: The rules, as templates/firewall.nft.j2 of the role renders them.
    type: str
    default: ""
  unit:
    description: The text of C(dgx-vllm-firewall.service).
    type: str
    default: ""
  timeout:
    description: Seconds until the rules are taken back.
    type: int
    default: 120
attributes:
  check_mode:
    description: Can run in check mode and return what would change.
    support: full
  diff_mode:
    description: Shows the old and the new rules.
    support: full
"""

EXAMPLES = r"""
- name: Load the rules
  dgx_vllm.spark.dgx_vllm_firewall:
    rules: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') }}"
    unit: "{{ lookup('ansible.builtin.file', 'dgx-vllm-firewall.service', rstrip=false) }}"

- name: Keep them
  dgx_vllm.spark.dgx_vllm_firewall:
    state: kept
    unit: "{{ lookup('ansible.builtin.file', 'dgx-vllm-firewall.service', rstrip=false) }}"
"""

RETURN = r"""
path:
  description: The file with the rules.
  returned: always
  type: str
  sample: /etc/dgx-vllm/firewall.nft
"""

import hashlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.firewall import apply, table
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under


def _wanted(params: dict[str, Any]) -> dict[str, Any]:
    rules, unit = (hashlib.sha256(params[name].encode()).hexdigest() for name in ("rules", "unit"))
    return {"rules_sha256": rules, "unit_sha256": unit, "enabled": True, "loaded": True}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["applied", "kept", "absent"], "default": "applied"},
            "rules": {"type": "str", "default": ""},
            "unit": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    root, params = Path("/"), module.params
    state, before = params["state"], read_text(under(root, table.RULES))
    found = table.firewall(root, run)
    gone = found == {"rules_sha256": None, "unit_sha256": None, "enabled": False, "loaded": False}
    changed = {"applied": found != _wanted(params), "kept": False, "absent": not gone}[state]
    try:
        if module.check_mode:
            pass
        elif state == "kept":
            apply.keep(root, run, params["unit"])
        elif changed and state == "applied":
            apply.load(root, run, params["rules"], params["timeout"])
        elif changed:
            apply.remove(root, run)
    except (apply.FirewallError, OSError) as error:
        module.fail_json(msg=str(error))
    diff = {
        "before": before,
        "after": params["rules"] if state == "applied" else "",
        "before_header": table.RULES,
        "after_header": table.RULES,
    }
    module.exit_json(changed=changed, path=table.RULES, **({"diff": diff} if changed else {}))


if __name__ == "__main__":
    main()
