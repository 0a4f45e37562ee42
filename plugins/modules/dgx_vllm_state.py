#!/usr/bin/python
"""Read everything the dgx_vllm role wants to know about a node, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_state
short_description: Read the state of a GB10 node for vLLM in one call
version_added: 0.1.0
description:
  - Reads the machine, the GPU, Docker, the image, the model, the service and the role's own records.
  - Changes nothing and runs in check mode. A missing tool is reported in the data, never as a failure.
  - Needs nothing on the node but its Python (3.9 or newer) and iproute2 (C(ss)).
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  image:
    description: Reference or ID of the wanted image. Empty for none.
    type: str
    default: ""
  model:
    description: Hugging Face ID of the model, or an absolute path on the node. Empty for none.
    type: str
    default: ""
  model_revision:
    description: Revision the weights were asked for.
    type: str
    default: main
  models_dir:
    description: Directory of the weights, used as C(HF_HOME).
    type: path
    default: /var/lib/dgx-vllm/models
  port:
    description: TCP port of the server. V(0) asks for none.
    type: int
    default: 8000
  packages:
    description: Debian packages whose installed version is wanted.
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
    description: The operator's machine's time in seconds since 1970, to compare the node's clock with. V(0) for none.
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

- name: Say how much memory is available
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
      description: C(id), C(version_id) and C(pretty_name) of os-release.
      type: dict
      returned: always
    kernel:
      description:
        - C(running) kernel, its C(command_line), the C(installed) kernels in boot order.
        - C(without_nvidia_module) lists those that would boot without a GPU driver.
      type: dict
      returned: always
    gpu:
      description: C(gpus) with C(name), C(compute_capability), C(driver_version), or C(error).
      type: dict
      returned: always
    memory:
      description: C(total_bytes), C(available_bytes), C(swap_total_bytes) of /proc/meminfo.
      type: dict
      returned: always
    disks:
      description: C(docker) and C(models), each with C(path), C(mount), C(free_bytes), C(total_bytes).
      type: dict
      returned: always
    port:
      description:
        - C(in_use), and the C(pid), C(process), C(unit) and C(addresses) of who listens.
        - C(error) says why ss (iproute2) gave no answer, null when it did.
      type: dict
      returned: always
    time:
      description:
        - C(synchronized), null when the system cannot say, and C(offset_seconds) from that of the operator's machine.
      type: dict
      returned: always
    packages:
      description: Installed version of each package asked for, null when not installed.
      type: dict
      returned: always
    docker:
      description:
        - C(installed), C(running), C(error), C(version), C(cgroup_driver), C(root_dir), C(runtimes),
          C(default_runtime), C(cdi_spec_dirs).
        - C(containers) are the running ones that are not ours, with C(name), C(image), C(ports).
      type: dict
      returned: always
    daemon_json:
      description: Docker's configuration file as C(exists), C(error), C(content).
      type: dict
      returned: always
    nvidia_ctk:
      description: C(path) and C(version) of nvidia-ctk, null when not installed.
      type: dict
      returned: always
    cdi_specs:
      description: CDI specification files present.
      type: list
      elements: str
      returned: always
    image:
      description: C(present), C(id), C(digests), C(labels), C(size_bytes) of the wanted image.
      type: dict
      returned: always
    model:
      description: C(kind) (V(hub) or V(path)), C(present), C(commit), C(path), C(size_bytes).
      type: dict
      returned: always
    service:
      description:
        - C(exists), C(load_state), C(active_state), C(sub_state), C(enabled), C(n_restarts), C(result),
          C(invocation_id), C(needs_reload).
        - C(release) is the value of C(X-DgxVllm-Release=) in the unit file, C(unit_sha256) its digest.
      type: dict
      returned: always
    watch:
      description:
        - C(exists), C(active_state), C(enabled), C(unit_sha256) of the replica watch's unit.
        - C(release) is the release whose configuration it reads, null when there is none.
      type: dict
      returned: always
    container:
      description: C(running), C(id), C(image_id), C(started_at) of our container.
      type: dict
      returned: always
    releases:
      description:
        - By id C(unit_sha256), C(env_sha256), C(env_mode), C(host), C(port) and C(image_id) of each release.
      type: dict
      returned: always
    current:
      description: ID of the current release, null when there is none.
      type: str
      returned: always
    previous:
      description: ID of the release before the current one, null when there is none.
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
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.collect import Wanted, collect


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "default": ""},
            "model": {"type": "str", "default": ""},
            "model_revision": {"type": "str", "default": "main"},
            "models_dir": {"type": "path", "default": "/var/lib/dgx-vllm/models"},
            "port": {"type": "int", "default": 8000},
            "packages": {"type": "list", "elements": "str", "default": []},
            "config_dir": {"type": "path", "default": "/etc/dgx-vllm"},
            "data_dir": {"type": "path", "default": "/var/lib/dgx-vllm"},
            "now": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    module.exit_json(
        changed=False, state=collect(Wanted(**dict(module.params, packages=tuple(module.params["packages"]))))
    )


if __name__ == "__main__":
    main()
