"""Run the role's real tasks on this machine, with stubs for some stages and commands that only note their calls."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.ansible_run import LOCAL, ROOT, Run, play

ROLE = ROOT / "roles/dgx_vllm"
NOTE = '#!/bin/sh\necho "$(basename "$0") $*" >>"$AT/calls"\n'
DEFAULT_BASE = "docker.io/vllm/vllm-openai:v0.33.0"
Tasks = list[dict[str, Any]]


class Stages:
    """A copy of the role below `place`; every host keeps its files in a folder of its own below `place/nodes`."""

    def __init__(self, place: Path, *stubs: str) -> None:
        self.place = place
        self.tasks = place / "roles/dgx_vllm/tasks"
        shutil.copytree(ROLE / "tasks", self.tasks)
        for name in ("defaults", "vars", "templates", "files", "meta", "handlers"):
            (self.tasks.parent / name).symlink_to(ROLE / name)
        for name in ("files", "playbooks", "templates"):
            (place / name).symlink_to(ROOT / name)
        (place / "bin").mkdir()
        for name in stubs:
            self.stub(name)

    def stub(self, stage: str, *tasks: dict[str, Any]) -> None:
        """A stage that only notes that it ran on a host, and then does `tasks`."""
        note = {
            "name": f"Note {stage}",
            "ansible.builtin.shell": f"echo {{{{ inventory_hostname }}}} {stage} >>{self.place}/calls",
            "check_mode": False,
        }
        assert (self.tasks / f"{stage}.yml").is_file(), f"there is no stage {stage}"
        (self.tasks / f"{stage}.yml").write_text(json.dumps([note, *tasks]), encoding="utf-8")

    def tool(self, name: str, script: str = "") -> None:
        """A command that notes how it was called, and then runs `script`."""
        (self.place / "bin" / name).write_text(NOTE + script, encoding="utf-8")
        (self.place / "bin" / name).chmod(0o755)

    def node(self, host: str, path: str = "") -> Path:
        """A path of a host."""
        return self.place / "nodes" / host / path

    def run(self, stage: str, hosts: Mapping[str, Mapping[str, Any]], *words: str, **common: Any) -> Run:
        """A playbook (a path of the project), or tasks of the role (a name), for hosts on this machine.

        `common` are variables of all hosts; the role's places on a node are moved below `place/nodes`.
        """
        # Ansible looks for roles next to the playbook first, where the real role would be.
        playbook = self.place / "play.yml"
        tasks = [{"ansible.builtin.include_role": {"name": "dgx_vllm", "tasks_from": stage}}]
        of_stage = json.dumps([{"hosts": "dgx_vllm", "gather_facts": False, "tasks": tasks}])
        text = (ROOT / stage).read_text(encoding="utf-8") if stage.endswith(".yml") else of_stage
        playbook.write_text(text, encoding="utf-8")
        inventory = {"hosts": {name: dict(own) for name, own in hosts.items()}, "vars": {**LOCAL, **common}}
        (self.place / "hosts.json").write_text(json.dumps({"dgx_vllm": inventory}), encoding="utf-8")
        base = f"{self.place}/nodes/{{{{ inventory_hostname }}}}"
        places = {"__dgx_vllm_config_dir": f"{base}/etc", "__dgx_vllm_data_dir": f"{base}/lib",
                  "__dgx_vllm_unit_path": f"{base}/dgx-vllm.service", "__dgx_vllm_watch_dir": f"{base}/watch",
                  "__dgx_vllm_run_lock": f"{base}/run/run.json",
                  "__dgx_vllm_cdi_file": f"{base}/cdi/nvidia.yaml",
                  "__dgx_vllm_needrestart_path": f"{base}/needrestart/conf.d/dgx-vllm.conf",
                  "dgx_vllm_cache_dir": f"{base}/cache", "dgx_vllm_models_dir": f"{base}/models"}  # fmt: skip
        for host in hosts:
            self.node(host).mkdir(parents=True, exist_ok=True)
        # No registry is asked from here.
        lock = self.place / "dgx_vllm.lock.txt"
        if not lock.exists():
            lock.write_text(json.dumps({DEFAULT_BASE: {"digest": f"sha256:{'b' * 64}"}}), encoding="utf-8")
        (self.place / "calls").write_text("", encoding="utf-8")
        return play(
            playbook, self.place / "hosts.json", "-e", json.dumps(places), *words, home=self.place / "home",
            ANSIBLE_ROLES_PATH=str(self.place / "roles"), AT=str(self.place),
            PATH=f"{self.place}/bin:{Path(LOCAL['ansible_python_interpreter']).parent}:{os.environ['PATH']}",
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        """The stubs that ran ("host stage") and the commands that were called, in order."""
        return (self.place / "calls").read_text(encoding="utf-8").splitlines()
