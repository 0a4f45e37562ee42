#!/usr/bin/python
"""Read everything the dgx_vllm role needs to know about a node, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_state
short_description: Read the state of a GB10 node for vLLM in one call
version_added: 0.1.0
description:
  - Reads the machine, the GPU, Docker, the image, the model, the service and the role's own records.
  - Changes nothing and runs in check mode. A missing tool is reported in the data, never as a failure.
    Only a damaged ledger fails, because nothing on the node may be changed then.
  - Needs nothing on the node but its Python (3.9 or newer) and iproute2 (C(ss)).
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  image:
    description: Reference or ID of the image to look for. Empty for none.
    type: str
    default: ""
  base_image:
    description: Reference of the image that O(image) would be built from. Empty for none.
    type: str
    default: ""
  model:
    description: Hugging Face ID of the model, or an absolute path on the node. Empty for none.
    type: str
    default: ""
  model_revision:
    description: Revision of the weights.
    type: str
    default: main
  model_files:
    description:
      - Which files of it count, by C(include), C(exclude) and C(load_format) as for M(dgx_vllm.spark.dgx_vllm_model).
    type: dict
    default: {}
  other_models:
    description: What the server needs beside it, each with C(model), C(revision) and C(files) (as O(model_files)).
    type: list
    elements: dict
    default: []
  models_dir:
    description: Directory of the weights, used as E(HF_HOME).
    type: path
    default: /var/lib/dgx-vllm/models
  port:
    description: TCP port of the server. V(0) for none.
    type: int
    default: 8000
  packages:
    description: Debian packages whose installed version to read.
    type: list
    elements: str
    default: []
  config_dir:
    description: Directory of the releases.
    type: path
    default: /etc/dgx-vllm
  data_dir:
    description: Directory of the role's records.
    type: path
    default: /var/lib/dgx-vllm
  now:
    description: Time of the operator's machine in seconds since 1970, to compare the node's clock with. V(0) for none.
    type: float
    default: 0.0
attributes:
  check_mode:
    description: Can run in check mode and return the same data without changing the node.
    support: full
  diff_mode:
    description: Reports what changed. This module changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Read the node
  dgx_vllm.spark.dgx_vllm_state:
    image: registry.example.com/dgx-vllm:0.33.0
    model: Qwen/Qwen3-Next-80B-A3B-Instruct-FP8
    packages: [docker.io, nvidia-container-toolkit]
  register: node

- name: Show how much memory is available
  ansible.builtin.debug:
    msg: "{{ (node.state.memory.available_bytes / 2 ** 30) | round(1) }} GiB"
"""

RETURN = r"""
state:
  description: The node. All sizes are bytes.
  returned: always
  type: dict
  contains:
    arch:
      description: Machine name as in C(uname -m).
      type: str
      returned: always
      sample: aarch64
    os:
      description: V(id), V(version_id) and V(pretty_name) of os-release.
      type: dict
      returned: always
    kernel:
      description:
        - V(running) kernel, its V(command_line), the V(installed) kernels in boot order.
        - V(without_nvidia_module) lists those that would boot without a GPU driver.
      type: dict
      returned: always
    gpu:
      description:
        - V(gpus) with V(name), V(compute_capability), V(driver_version), or V(error).
        - V(driver) has the versions of the V(loaded) kernel module and of the V(installed) libraries, null if
          unknown.
      type: dict
      returned: always
    memory:
      description: V(total_bytes), V(available_bytes), V(swap_total_bytes) of /proc/meminfo.
      type: dict
      returned: always
    desktop:
      description: V(shells) of a desktop that runs, and V(bytes) that its programs have for themselves.
      type: dict
      returned: always
    disks:
      description:
        - V(docker) (where the engine keeps its images) and V(models), each with V(path), V(mount), V(free_bytes) and
          V(total_bytes).
      type: dict
      returned: always
    port:
      description:
        - V(in_use), and the V(pid), V(process), V(unit) and V(addresses) of who listens.
        - V(error) says why ss (iproute2) gave no answer, null if it did.
      type: dict
      returned: always
    time:
      description:
        - V(synchronized), null if the system cannot tell, and V(offset_seconds) from the operator's machine.
      type: dict
      returned: always
    packages:
      description: Installed version of each package of O(packages), null if it is not installed.
      type: dict
      returned: always
    apt:
      description: Enabled apt repositories of packages, each with V(file), V(uri), V(suite), V(signed_by).
      type: list
      elements: dict
      returned: always
    docker:
      description:
        - V(installed), V(running), V(timed_out), V(error), V(version), V(cgroup_driver), V(root_dir), V(runtimes),
          V(default_runtime), V(cdi_spec_dirs), V(image_store) (V(docker) or V(containerd)), V(live_restore).
        - V(containers) are the running ones that are not ours, with V(name), V(image), V(ports) and the policy
          V(restart).
      type: dict
      returned: always
    daemon_json:
      description: Docker's configuration file as V(exists), V(error), V(content), V(mode).
      type: dict
      returned: always
    registry_login:
      description: Whether the role's own configuration of Docker's client holds a login, because a run was cut off.
      type: bool
      returned: always
    nvidia_ctk:
      description: V(path) and V(version) of nvidia-ctk, null if it is not installed.
      type: dict
      returned: always
    cdi:
      description:
        - V(specs) are the specifications of C(nvidia.com/gpu) with V(path), the V(drivers) of their libraries and the
          libraries that are V(gone).
        - V(refreshes) says whether the toolkit keeps one up to date by itself.
      type: dict
      returned: always
    boot_id:
      description: The kernel's ID of this boot.
      type: str
      returned: always
    firewall:
      description:
        - V(rules_sha256) and V(unit_sha256) of the firewall's files, null if there are none.
        - V(enabled), and V(loaded), whether the kernel has just these rules.
      type: dict
      returned: always
    needrestart_sha256:
      description: Digest of the file that keeps needrestart from restarting the server, null if there is none.
      type: str
      returned: always
    image:
      description: V(present), V(id), V(digests), V(labels), V(size_bytes) of the image.
      type: dict
      returned: always
    base_image:
      description: The same of O(base_image).
      type: dict
      returned: always
    model:
      description:
        - V(kind) (V(hub) or V(path)), V(present), V(commit), V(path), V(size_bytes) of the weights that
          vLLM reads.
        - V(partial_bytes) is what a download need not fetch again, V(lacking) what a folder has to have to be a model.
        - V(files) are those of a folder, each with its size and, if it is JSON, its checksum.
        - V(heads) is the number of attention heads that the model's configuration names, null if it names none.
        - V(unreadable) and V(unwritable) are paths that root cannot use in a container without capabilities.
      type: dict
      returned: always
    other_models:
      description: The same of each of O(other_models), with its V(model), V(revision) and V(files).
      type: list
      elements: dict
      returned: always
    service:
      description:
        - V(exists), V(load_state), V(active_state), V(sub_state), V(enabled), V(n_restarts), V(result),
          V(invocation_id), V(needs_reload).
        - V(release) is the value of C(X-DgxVllm-Release=) in the unit file, V(unit_sha256) its digest.
      type: dict
      returned: always
    watch:
      description:
        - V(exists), V(active_state), V(enabled), V(unit_sha256) of the replica watch's unit.
        - V(release) is the release whose configuration it reads, null if there is none.
        - V(secret) has the V(replica) that the node's secret is for and V(sha256), the digest of the secret itself.
          Both are empty without a whole one that only root can read.
      type: dict
      returned: always
    container:
      description: V(running), V(id), V(image_id), V(release), V(started_at) of our container.
      type: dict
      returned: always
    releases:
      description:
        - By id V(unit_sha256), V(env_sha256), V(env_mode), V(host), V(port) and V(image_id) of each release.
      type: dict
      returned: always
    current:
      description: ID of the current release, null if there is none.
      type: str
      returned: always
    previous:
      description: ID of the previous release, null if there is none.
      type: str
      returned: always
    ledger:
      description: What the role installed on this node.
      type: dict
      returned: always
    health:
      description: Evidence of the last healthy run.
      type: dict
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.collect import Query, collect
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.ledger import LedgerError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "default": ""},
            "base_image": {"type": "str", "default": ""},
            "model": {"type": "str", "default": ""},
            "model_revision": {"type": "str", "default": "main"},
            "model_files": {"type": "dict", "default": {}},
            "other_models": {"type": "list", "elements": "dict", "default": []},
            "models_dir": {"type": "path", "default": "/var/lib/dgx-vllm/models"},
            "port": {"type": "int", "default": 8000},
            "packages": {"type": "list", "elements": "str", "default": []},
            "config_dir": {"type": "path", "default": "/etc/dgx-vllm"},
            "data_dir": {"type": "path", "default": "/var/lib/dgx-vllm"},
            "now": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    lists = {name: tuple(module.params[name]) for name in ("packages", "other_models")}
    try:
        module.exit_json(changed=False, state=collect(Query(**{**module.params, **lists})))
    except LedgerError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
