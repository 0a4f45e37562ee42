#!/usr/bin/python
"""Measure how many tokens per second the server on this node generates."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_speed
short_description: Measure the tokens per second of the running server
version_added: 0.2.0
description:
  - Sends completions of a fixed number of tokens to the server on the node, one request at a time with several prompts
    in it, and reports every run. Requests of other clients lower the measured rates.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  host:
    description: The address that the server listens on; a wildcard address is reached through loopback.
    type: str
    default: 127.0.0.1
  port:
    description: The server's port.
    type: int
    default: 8000
  api_key:
    description: The server's API key, if it has one.
    type: str
    default: ""
  model:
    description: The name that clients use for the model.
    type: str
    required: true
  batches:
    description: Numbers of prompts in a request, one measurement per number.
    type: list
    elements: int
    default: [1, 8, 32]
  tokens:
    description: Tokens generated per prompt.
    type: int
    default: 64
  runs:
    description: Timed requests per batch.
    type: int
    default: 5
  timeout:
    description: Seconds that one request may take.
    type: float
    default: 60
attributes:
  check_mode:
    description: Changes nothing, so it measures in check mode too.
    support: full
  diff_mode:
    description: Reports what changed. This module changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Measure the server
  dgx_vllm.spark.dgx_vllm_speed:
    model: Qwen/Qwen3-0.6B
    api_key: "{{ vault_api_key }}"
"""

RETURN = r"""
rates:
  description: Batch to the tokens per second of every run.
  type: dict
  returned: success
  sample: {"1": [50.1, 50.3, 49.9]}
msg:
  description: What was measured, or why nothing was and how to fix it.
  type: str
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import make_http
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.speed import Request, SpeedError, measure


def argument_spec() -> dict[str, Any]:
    """Parameters, as documented above."""
    return {
        "host": {"type": "str", "default": "127.0.0.1"},
        "port": {"type": "int", "default": 8000},
        "api_key": {"type": "str", "default": "", "no_log": True},
        "model": {"type": "str", "required": True},
        "batches": {"type": "list", "elements": "int", "default": [1, 8, 32]},
        "tokens": {"type": "int", "default": 64},
        "runs": {"type": "int", "default": 5},
        "timeout": {"type": "float", "default": 60},
    }


def main() -> None:
    """Entry point on the node."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    given = module.params
    http = make_http(given["host"], given["port"], given["api_key"])
    request = Request(given["model"], given["batches"], given["tokens"], given["runs"], given["timeout"])
    try:
        rates = measure(http, request)
    except SpeedError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=False, rates=rates, msg=f"{len(rates)} batches measured")


if __name__ == "__main__":
    main()
