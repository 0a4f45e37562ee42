#!/usr/bin/python
"""Resolve an image's tag to a digest at its registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_image_digest
short_description: Resolve the tag of a container image to its digest
version_added: 0.1.0
description:
  - Asks the registry once, so that every node can then pull the same digest.
  - The digest is that of the index if the image has several architectures. Nothing is pulled.
  - >-
    Certificates are read as Docker reads them, from C(/etc/docker/certs.d/HOST[:PORT]/). Plain HTTP is used
    only for loopback addresses without such certificates.
  - Changes nothing and runs in check mode. Needs no Docker and no Python library.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  image:
    description: Image reference with a tag or a digest, as C(docker pull) takes it.
    type: str
    required: true
  username:
    description: User name for the registry. Empty for none.
    type: str
    default: ""
  password:
    description: Password or access token for the registry.
    type: str
    default: ""
  certificates_dir:
    description: Directory with one subdirectory of certificates per registry.
    type: path
    default: /etc/docker/certs.d
  timeout:
    description: Seconds to wait for each answer.
    type: int
    default: 30
attributes:
  check_mode:
    description: Can run in check mode and return the same data.
    support: full
  diff_mode:
    description: Reports what changed. This module changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Pin the tag once for all nodes
  dgx_vllm.spark.dgx_vllm_image_digest:
    image: registry.example.com/dgx-vllm:0.33.0
    username: robot
    password: "{{ vault_registry_password }}"
  delegate_to: localhost
  run_once: true
  register: pinned

- name: Show the pinned reference
  ansible.builtin.debug:
    var: pinned.reference
"""

RETURN = r"""
reference:
  description: The image by digest, as C(docker pull) takes it.
  returned: success
  type: str
  sample: registry.example.com/dgx-vllm@sha256:6c3c624b58dbbcd3c0dd82b4c53f0419…
digest:
  description: The digest.
  returned: success
  type: str
  sample: sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.client import (
    Registry,
    RegistryError,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import parse


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "certificates_dir": {"type": "path", "default": "/etc/docker/certs.d"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        reference = parse(options["image"])
        registry = Registry(
            reference,
            options["username"],
            options["password"],
            Path(options["certificates_dir"]),
            options["timeout"],
        )
        digest = registry.digest()
    except (ValueError, RegistryError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, reference=f"{reference.name}@{digest}", digest=digest)


if __name__ == "__main__":
    main()
