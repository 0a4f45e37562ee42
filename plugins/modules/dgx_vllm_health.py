#!/usr/bin/python
"""Check the health of the served model on one node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_health
short_description: Wait for a vLLM service and check that it really serves
version_added: 0.1.0
description:
  - Waits until the service answers, then checks the unit, the container's image, the patch manifest, the records of
    what vLLM's processes decided, the marker lines, the MoE configs and the server's endpoints, and has the server work
    once. Returns one finding with its remedy per check.
  - Nothing is predicted from the model. An image without records is judged by its log alone; what cannot be known then
    is a skip.
  - While it waits, it prints how far the server is. It ends as soon as the unit has failed, not at the timeout.
  - Reads only. The node needs its system Python (3.9 or newer), systemd and Docker.
  - In check mode it does not wait and never fails; a missing unit is a skip.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  unit:
    description: Name of the systemd unit.
    type: str
    default: dgx-vllm.service
  container:
    description: Name of the serving container.
    type: str
    default: dgx-vllm
  host:
    description: The address that the server listens on; a wildcard address is reached through loopback.
    type: str
    default: 127.0.0.1
  port:
    description: The port that the server listens on.
    type: int
    default: 8000
  api_key:
    description: The API key, if the server has one.
    type: str
    default: ""
  api_key_file:
    description:
      - An environment file on the node. Its C(VLLM_API_KEY) is used if O(api_key) is empty. A release that is older
        than the current key has its own in its C(vllm.env).
    type: str
    default: ""
  secrets:
    description: What no line of the log may show besides the key, such as values of the server's environment.
    type: list
    elements: str
    default: []
  model:
    description: The served name that must be listed and must answer. If empty, the first one listed.
    type: str
    default: ""
  image_id:
    description: The image ID that the container must run, V(sha256:...). If empty, any.
    type: str
    default: ""
  moe_config_required:
    description:
      - Whether any MoE config that the model asked for and did not find is a failure.
      - With V(false) it is one only if the file is there, or if it is the one that the image ships.
    type: bool
    default: false
  completion_timeout:
    description: >-
      Seconds within which a completion of eight tokens must be answered, or a small request to the first other route
      that the server has (embeddings, rerank, classification, pooling, transcription).
    type: float
    default: 60
  serves:
    description: Whether this node has the API. In a replica only the head has it; the other nodes skip the requests.
    type: bool
    default: true
  watch:
    description:
      - The state file of the replica's watch. Empty for a standalone node.
      - With it, a unit that is down until all nodes start together has not failed, and the restarts of the watch count
        instead of systemd's.
    type: str
    default: ""
  watch_unit:
    description: Name of the watch's systemd unit.
    type: str
    default: dgx-vllm-watch.service
  evidence:
    description:
      - The RV(evidence) of an earlier healthy check. Its markers stand for the start of this run's log if the journal
        no longer has it, and only for the same run of the unit.
    type: dict
    default: {}
  firewall:
    description: Whether the firewall's rules must be loaded; a warning if they are not.
    type: bool
    default: false
  mode:
    description:
      - V(full) runs every check once the server answers.
      - V(probe) only reports how far the server is and does not wait.
    type: str
    choices: [probe, full]
    default: full
  restarts_before:
    description:
      - An earlier restart counter. A higher one now means that the unit has failed since.
      - V(-1) compares nothing.
    type: int
    default: -1
  timeout:
    description: Seconds to wait until the server answers. V(0) does not wait.
    type: int
    default: 0
  interval:
    description: Seconds between two probes while waiting.
    type: float
    default: 5
  fail:
    description: Whether an unhealthy service makes the task fail. V(false) only reports.
    type: bool
    default: true
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Reports what changed. This module changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Wait for the server and check it
  dgx_vllm.spark.dgx_vllm_health:
    port: 8000
    timeout: 1800

- name: Report only
  dgx_vllm.spark.dgx_vllm_health:
    fail: false
  register: health
"""

RETURN = r"""
healthy:
  description: Whether no check failed. Always false for a probe.
  type: bool
  returned: always
ready:
  description: >-
    Whether the server answers C(/health), or, on a node without an API, the watch says that the replica serves.
  type: bool
  returned: always
failed_unit:
  description: Whether the unit has failed, does not exist, waits for a restart, or has restarted since the first probe.
  type: bool
  returned: always
phase:
  description: >-
    V(starting), V(loading weights), V(compiling), V(warming up), V(serving), V(restarting) or V(failed), read from the
    log, the watch and the unit.
  type: str
  returned: always
progress:
  description: The last progress line of that phase.
  type: str
  returned: always
  sample: "Loading safetensors checkpoint shards: 40%"
elapsed_s:
  description: Seconds since the unit's process was started.
  type: int
  returned: always
invocation_id:
  description: systemd's ID of this run of the unit.
  type: str
  returned: always
release:
  description: The release that started the container; empty if it does not say. Only if there is a container.
  type: str
  returned: full
n_restarts:
  description: systemd's restart counter, or in a replica that of the watch.
  type: int
  returned: always
checks:
  description: >-
    One finding per check with the keys C(where) (the host), C(check), C(status) (V(pass), V(warn), V(fail) or V(skip)),
    C(found), C(reason) and C(remedy).
  type: list
  elements: dict
  returned: always
summary:
  description: One sentence; after a failure the failed checks and their remedies.
  type: str
  returned: always
findings:
  description: Known errors in the log with the keys C(id), C(sentence), C(remedy) and C(line).
  type: list
  elements: dict
  returned: always
root_error:
  description: The last exception in the log that is a cause; empty while all is well.
  type: str
  returned: always
log_tail:
  description: The last 40 lines of the log of the run that failed, secrets masked; empty while all is well.
  type: list
  elements: str
  returned: always
evidence:
  description: The markers in this run's log, for O(evidence) of a later check; empty unless healthy.
  type: dict
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.examine import examine, key_in
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted


def argument_spec() -> dict[str, Any]:
    """The module's parameters; timeout, interval and fail are the action plugin's."""
    return {
        "unit": {"type": "str", "default": "dgx-vllm.service"},
        "container": {"type": "str", "default": "dgx-vllm"},
        "host": {"type": "str", "default": "127.0.0.1"},
        "port": {"type": "int", "default": 8000},
        "api_key": {"type": "str", "default": "", "no_log": True},
        "api_key_file": {"type": "str", "default": "", "no_log": False},
        "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
        "model": {"type": "str", "default": ""},
        "image_id": {"type": "str", "default": ""},
        "moe_config_required": {"type": "bool", "default": False},
        "completion_timeout": {"type": "float", "default": 60},
        "serves": {"type": "bool", "default": True},
        "watch": {"type": "str", "default": ""},
        "watch_unit": {"type": "str", "default": "dgx-vllm-watch.service"},
        "evidence": {"type": "dict", "default": {}},
        "firewall": {"type": "bool", "default": False},
        "mode": {"type": "str", "default": "full", "choices": ["probe", "full"]},
        "restarts_before": {"type": "int", "default": -1},
        "timeout": {"type": "int", "default": 0},
        "interval": {"type": "float", "default": 5},
        "fail": {"type": "bool", "default": True},
    }


def main() -> None:
    """Entry point on the node."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    given = {field: module.params[field] for field in Wanted._fields}
    key = given["api_key"] or key_in(module.params["api_key_file"])
    if key:
        module.no_log_values.add(key)
    wanted = Wanted(**{**given, "api_key": key})
    module.exit_json(changed=False, **examine(module.params["mode"], wanted))


if __name__ == "__main__":
    main()
