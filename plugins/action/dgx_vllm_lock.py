"""Action plugin of dgx_vllm_lock: says which run this is, and knows whether a run of this machine has ended."""

from __future__ import annotations

import os
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import run as runs

MODULE = "dgx_vllm.spark.dgx_vllm_lock"


class ActionModule(ActionBase):  # type: ignore[misc]
    """What Ansible loads."""

    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the node once, and again if its lock is that of a run that has ended."""
        super().run(tmp, task_vars)
        given: dict[str, Any] = dict(self._task.args)
        # A worker is a child of ansible-playbook.
        given["run"] = runs.this_run(os.getppid(), context.CLIARGS.get("args") or ())
        result = self._ask(given, task_vars)
        holder = result.get("holder")
        if holder and runs.ended(holder):
            result = self._ask({**given, "gone": holder["id"]}, task_vars)
            holder = result.get("holder")
        if holder:
            host = str((task_vars or {}).get("inventory_hostname", "the node"))
            path = str(given.get("path", "/run/dgx-vllm/run.json"))
            result.update(failed=True, msg=runs.sentence(host, holder, path))
        return result

    def _ask(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        return dict(self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars))
