#!/usr/bin/python
"""Lock the tag of a base image to its digest, on the operator's machine (the code is the action plugin)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_base_lock
short_description: Lock the tag of a base image to its digest
version_added: 0.2.0
description:
  - Asks the registry from the operator's machine for the digest of a tag, and writes it to a lock file. No node is
    contacted.
  - An image that has an entry keeps it, and the registry is not asked, unless O(update) is set.
  - A registry that gives no answer is a warning, and the digest then that of the lock file or empty.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  image:
    description: The image, with a tag.
    type: str
    required: true
  path:
    description: The lock file.
    type: str
    required: true
  update:
    description: Whether an entry is replaced by what the registry says.
    type: bool
    default: false
  username:
    description: User name for the registry. Empty for none.
    type: str
    default: ""
  password:
    description: Password or access token for the registry.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode; the file is not written then.
    support: full
  diff_mode:
    description: Reports what changed. This module shows no content of files.
    support: none
"""

EXAMPLES = r"""
- name: Lock the base
  dgx_vllm.spark.dgx_vllm_base_lock:
    image: docker.io/vllm/vllm-openai:v0.33.0
    path: "{{ inventory_dir }}/dgx_vllm.lock.txt"
  run_once: true
"""

RETURN = r"""
digest:
  description: The digest, empty if nobody knows it.
  returned: success
  type: str
msg:
  description: What is locked, and whether that is new.
  returned: always
  type: str
"""
