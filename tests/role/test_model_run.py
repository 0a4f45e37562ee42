"""The stage `model` on this machine, in check mode and without a hub: what it asks for, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import Run
from helpers.stages import Stages

DRAFT = {"model": "org/draft", "revision": "v2", "files": {}, "present": False, "size_bytes": 0}


def asked(run: Run) -> list[dict[str, Any]]:
    """The arguments of each download."""
    for task, _, result in run.results():
        if "Download the model and" in task:
            return [one["invocation"]["module_args"] for one in result["results"]]
    return []


def stage(place: Path, state: dict[str, Any], **variables: Any) -> Run:
    stages = Stages(place, "common/owned_directory", "common/ledger", "common/state")
    whole = {"image": {"present": True, "id": "sha256:1"}, "ledger": {}, "other_models": [], **state}
    node = {
        "__dgx_vllm_node": {"state": whole},
        "__dgx_vllm_image_ref": "dgx-vllm:1",
        "dgx_vllm_model": "org/model",
        "dgx_vllm_hf_endpoint": "http://127.0.0.1:9",
        **variables,
    }
    return stages.run("model/main", {"spark1": node}, "--check", "-v")


def test_class_d_g_h_what_the_download_gets(tmp_path: Path) -> None:
    run = stage(
        tmp_path,
        {"model": {"present": False}, "other_models": [DRAFT]},
        dgx_vllm_model_exclude=["*.pdf"],
        dgx_vllm_extra_args=["--load-format", "fastsafetensors", "-sc.model=org/draft", "-sc.revision=v2"],
        dgx_vllm_model_environment={
            "HF_HUB_DISABLE_XET": 1,
            "HTTPS_PROXY": "http://u:pa55word@192.0.2.1:3128",
        },
        dgx_vllm_model_stall_timeout=300,
        dgx_vllm_model_download_timeout=7200,
        dgx_vllm_model_include=["*.json", "*.safetensors"],
    )
    assert run.rc == 0, run.failure("spark1")
    main, draft = asked(run)
    assert (main["model"], main["exclude"], main["load_format"]) == (
        "org/model",
        ["*.pdf"],
        "fastsafetensors",
    )
    assert (draft["model"], draft["revision"], draft["exclude"]) == ("org/draft", "v2", [])
    assert (main["stall_timeout"], main["timeout"]) == (300, 7200)
    assert main["include"] == ["*.json", "*.safetensors"]
    assert "pa55word" not in str(run.out)
    assert "VALUE_SPECIFIED" in main["environment"]


def test_m5_a_run_can_ask_for_the_checksums_of_models_that_are_there(tmp_path: Path) -> None:
    here = {"model": {"present": True}, "other_models": [{**DRAFT, "present": True}]}
    run = stage(tmp_path, here, dgx_vllm_model_verify=True)
    assert run.rc == 0, run.failure("spark1")
    assert [(one["model"], one["verify"]) for one in asked(run)] == [("org/model", True), ("org/draft", True)]


@pytest.mark.parametrize(
    ("state", "models"),
    [
        ({"model": {"present": True}}, []),
        ({"model": {"present": True}, "other_models": [{**DRAFT, "present": True}]}, []),
        ({"model": {"present": True}, "other_models": [DRAFT]}, ["org/draft"]),
    ],
)
def test_only_what_is_missing_is_asked_for(state: dict[str, Any], models: list[str], tmp_path: Path) -> None:
    run = stage(tmp_path, state)
    assert run.rc == 0, run.failure("spark1")
    assert [one["model"] for one in asked(run)] == models
