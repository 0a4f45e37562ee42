#!/usr/bin/python
"""Make a model's weights present and verified on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dgx_vllm_model
short_description: Make a model's weights present and verified
version_added: 0.1.0
description:
  - Asks the model hub for the commit and the files of a revision, fetches what is missing of those that vLLM reads with
    C(hf download) in the given image, compares every checksum, and records the result.
  - A run after an interrupted one keeps the files that are complete. A recorded model is not asked for again, so an
    unchanged run needs no network; a branch stays at the commit that was fetched first.
  - A cache that was copied to the node is verified and recorded, also without a network.
author:
  - The dgx_vllm authors (@dgx-vllm)
options:
  model:
    description: The model's ID on the hub.
    type: str
    required: true
  revision:
    description: Branch, tag or commit.
    type: str
    default: main
  models_dir:
    description: The node's model cache, used as E(HF_HOME).
    type: path
    default: /var/lib/dgx-vllm/models
  image:
    description: An image on the node that has C(hf). Needed if something must be fetched.
    type: str
    default: ""
  endpoint:
    description: The hub or a mirror of it.
    type: str
    default: https://huggingface.co
  token:
    description: The hub's access token, if the model needs one.
    type: str
    default: ""
  include:
    description: Patterns of the files to fetch, instead of those that vLLM reads.
    type: list
    elements: str
    default: []
  exclude:
    description: Patterns of files to leave out.
    type: list
    elements: str
    default: []
  load_format:
    description: C(--load-format) of the server, on which it depends which weights vLLM reads.
    type: str
    default: auto
  environment:
    description:
      - Variables of the download as a JSON object, such as a proxy. They reach it by its environment only; files that
        C(SSL_CERT_FILE), C(REQUESTS_CA_BUNDLE) and C(CURL_CA_BUNDLE) name are given to it.
    type: json
    default: "{}"
  stall_timeout:
    description: Seconds without a new byte after which a download is stopped.
    type: int
    default: 600
  timeout:
    description: Seconds for the download.
    type: int
    default: 14400
  verify:
    description: Whether the checksums of a recorded model are compared again. What is wrong is fetched again.
    type: bool
    default: false
  data_dir:
    description: The folder whose C(state/) gets the record.
    type: path
    default: /var/lib/dgx-vllm
attributes:
  check_mode:
    description: Can run in check mode. It then says what would be fetched.
    support: full
  diff_mode:
    description: Reports what changed. This module shows no content of files.
    support: none
"""

EXAMPLES = r"""
- name: Weights of a pinned commit
  dgx_vllm.spark.dgx_vllm_model:
    model: Qwen/Qwen3-0.6B
    revision: c1899de289a04d12100db370d81485cdf75e47ca
    image: "{{ image_id }}"
    token: "{{ vault_hf_token }}"
  async: 14400
  poll: 15
"""

RETURN = r"""
commit:
  description: The commit that is present.
  type: str
  returned: success
bytes_fetched:
  description: Bytes that were missing and were fetched.
  type: int
  returned: success
snapshot:
  description: The folder of the commit on the node.
  type: str
  returned: success
msg:
  description: What was done, or why it failed and how to fix it.
  type: str
  returned: always
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.download import (
    ModelError,
    Request,
    ensure,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import Wanted


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "model": {"type": "str", "required": True},
            "revision": {"type": "str", "default": "main"},
            "models_dir": {"type": "path", "default": "/var/lib/dgx-vllm/models"},
            "image": {"type": "str", "default": ""},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "default": "", "no_log": True},
            "include": {"type": "list", "elements": "str", "default": []},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "load_format": {"type": "str", "default": "auto"},
            # JSON text, so that no_log hides the whole and not every "1" of the output.
            "environment": {"type": "json", "default": "{}", "no_log": True},
            "stall_timeout": {"type": "int", "default": 600},
            "timeout": {"type": "int", "default": 14400},
            "verify": {"type": "bool", "default": False},
            "data_dir": {"type": "path", "default": "/var/lib/dgx-vllm"},
        },
        supports_check_mode=True,
    )
    given = module.params
    environment = {name: str(value) for name, value in json.loads(given["environment"]).items()}
    # The hub is asked for its list of files from here, with the same proxy and certificates.
    os.environ.update(environment)
    if environment.get("REQUESTS_CA_BUNDLE"):
        os.environ.setdefault("SSL_CERT_FILE", environment["REQUESTS_CA_BUNDLE"])
    wanted = Wanted(tuple(given["include"]), tuple(given["exclude"]), given["load_format"])
    plain = {field: given[field] for field in Request._fields if field not in ("wanted", "environment")}
    request = Request(**plain, wanted=wanted, environment=environment)
    try:
        outcome = ensure(request, module.check_mode)
    except ModelError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"The model cache cannot be used ({error}): check owner, mode and space of that path."
        )
    else:
        module.exit_json(**outcome._asdict())


if __name__ == "__main__":
    main()
