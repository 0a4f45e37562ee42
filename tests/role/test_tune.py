"""The container that measures: as locked up as the server's, with the model read-only."""

from __future__ import annotations

from typing import Any

import pytest

CASES = ("hub", "everything", "local_path", "cdi", "build")
Rendered = dict[str, dict[str, Any]]


@pytest.mark.parametrize("case", CASES)
def test_container_is_locked_up(rendered: Rendered, case: str) -> None:
    command = rendered[case]["tune"]
    entry = command.index("--entrypoint=python3")
    options, words = command[2:entry], command[entry + 1 :]
    assert command[:2] == ["docker", "run"]
    assert {"--rm", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
    assert not [option for option in options if "privileged" in option.replace("no-new-privileges", "")]
    volumes = [option.removeprefix("--volume=") for option in options if option.startswith("--volume=")]
    writeable = {volume.rpartition(":")[2] for volume in volumes if not volume.endswith(":ro")}
    assert writeable == {"/cache", "/results"}
    assert words[1:4] == ["-m", "moe_config", "tune"]
    gpu = {"--gpus=all", "--device=nvidia.com/gpu=all"} & set(options)
    assert gpu == {"--gpus=all", "--device=nvidia.com/gpu=all"} & set(rendered[case]["docker_args"])


def test_model_of_the_hub_and_of_a_folder(rendered: Rendered) -> None:
    hub, local = rendered["hub"]["tune"], rendered["local_path"]["tune"]
    assert hub[hub.index("--revision") + 1] == "0123456789abcdef0123456789abcdef01234567"
    assert "--revision" not in local
    folder = local[local.index("--model") + 1]
    assert f"--volume={folder}:{folder}:ro" in local


def test_results_belong_to_an_image_and_a_model(rendered: Rendered) -> None:
    (volume,) = (word for word in rendered["hub"]["tune"] if word.endswith(":/results"))
    folder = "/var/lib/dgx-vllm/tuning/Qwen3-Next-80B-A3B-Instruct-FP8-0f1e2d3c4b5a-tp1"
    assert volume == f"--volume={folder}:/results"
