#!/usr/bin/python
"""Note in the ledger of a node what the dgx_vllm role adds to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_ledger
short_description: Note what the role adds to a node
version_added: 0.2.0
description:
  - Adds to the ledger, the file by which uninstall knows what came with the role.
  - Reads the file again under a lock, so that two runs at once lose nothing, and writes it so that a power cut leaves
    the old one or the new one. Stops at a damaged file.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  add:
    description: What to note. A list grows by what it lacks; any other value is replaced.
    type: dict
    default: {}
  remove:
    description: What to take out again, by list.
    type: dict
    default: {}
  path:
    description: The ledger.
    type: path
    default: /var/lib/dgx-vllm/state/ledger.json
attributes:
  check_mode:
    description: Can run in check mode and return what would be noted.
    support: full
  diff_mode:
    description: Shows the ledger before and after.
    support: full
"""

EXAMPLES = r"""
- name: Note a package
  dgx_vllm.spark.dgx_vllm_ledger:
    add:
      packages: [nvidia-container-toolkit]
"""

RETURN = r"""
ledger:
  description: The whole ledger afterwards.
  type: dict
  returned: success
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import ledger


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "add": {"type": "dict", "default": {}},
            "remove": {"type": "dict", "default": {}},
            "path": {"type": "path", "default": "/var/lib/dgx-vllm/state/ledger.json"},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    try:
        before = ledger.read(path)
        after, changed = ledger.add(
            path, module.params["add"], write=not module.check_mode, gone=module.params["remove"]
        )
    except ledger.LedgerError as error:
        module.fail_json(msg=str(error))
    diff = {
        "before_header": str(path),
        "after_header": str(path),
        "before": _shown(before),
        "after": _shown(after),
    }
    module.exit_json(changed=changed, ledger=after, diff=diff)


def _shown(content: object) -> str:
    return json.dumps(content, indent=4, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
