"""The module as Ansible runs it."""

from __future__ import annotations

import json

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.modules import dgx_vllm_image_digest as module

from helpers.fake_registry import DIGEST, PASSWORD, USER

NAME = "dgx_vllm_image_digest"


def test_success(run_module, registry, tmp_path):
    registry.login = "basic"
    found = run_module(
        NAME,
        image=f"{registry.host}/team/image:0.33.0",
        username=USER,
        password=PASSWORD,
        certificates_dir=str(tmp_path),
        _ansible_check_mode=True,
    )
    assert (found["changed"], found["digest"]) == (False, DIGEST)
    assert found["reference"] == f"{registry.host}/team/image@{DIGEST}"
    assert PASSWORD not in json.dumps(found)


@pytest.mark.parametrize(
    ("image", "words"), [("team/image:9", "has no"), ("Team/Image", "not an image reference")]
)
def test_failure_is_one_sentence(run_module, registry, tmp_path, image, words):
    found = run_module(NAME, image=f"{registry.host}/{image}", certificates_dir=str(tmp_path))
    assert found["failed"] is True
    assert words in found["msg"]


def test_documentation_names_every_argument():
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert set(options) == {"image", "username", "password", "certificates_dir", "timeout"}
