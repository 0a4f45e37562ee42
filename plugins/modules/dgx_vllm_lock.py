#!/usr/bin/python
"""Take or free the lock of a node, so that one run changes it at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_lock
short_description: Let one run at a time change a node
version_added: 0.2.0
description:
  - Takes the lock of the node for this run of C(ansible-playbook), or frees it. The run that has it may take it again.
  - Fails if another run holds it, and says whose it is. A lock counts as free when its run was started on this
    operator's machine and its process has ended, and after 24 hours. It lies in C(/run), so a reboot frees it.
  - Reports no change; nothing of it outlasts the run.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  state:
    description: V(taken) takes the lock, V(free) frees it if this run has it.
    type: str
    choices: [taken, free]
    default: taken
  path:
    description: The file of the lock, alone in its folder.
    type: path
    default: /run/dgx-vllm/run.json
  run:
    description: This run. The action plugin fills it in.
    type: dict
    default: {}
  gone:
    description: Id of a run that has ended. The action plugin fills it in.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode; takes and frees nothing then.
    support: full
  diff_mode:
    description: Reports what changed. This module reports no change.
    support: none
"""

EXAMPLES = r"""
- name: Change the node alone
  block:
    - name: Be the only run on this node
      dgx_vllm.spark.dgx_vllm_lock:
  always:
    - name: Let other runs in
      dgx_vllm.spark.dgx_vllm_lock:
        state: free
"""

RETURN = r"""
holder:
  description: Who holds the lock, if it is another run.
  returned: always
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import run_lock


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "free"], "default": "taken"},
            "path": {"type": "path", "default": "/run/dgx-vllm/run.json"},
            "run": {"type": "dict", "default": {}},
            "gone": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path, run = Path(module.params["path"]), module.params["run"]
    if module.check_mode:
        module.exit_json(changed=False, holder={})
    if not run.get("id"):
        module.fail_json(msg="The run has no id: call this module from a playbook.")
    holder = {}
    try:
        if module.params["state"] == "taken":
            holder = run_lock.take(path, run, module.params["gone"])
        else:
            run_lock.free(path, run["id"])
    except OSError as error:
        module.fail_json(
            msg=f"The lock {path} cannot be used ({error.strerror}): correct that folder on this node."
        )
    module.exit_json(changed=False, holder=holder)


if __name__ == "__main__":
    main()
