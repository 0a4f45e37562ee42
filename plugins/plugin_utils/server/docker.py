"""Arguments of `docker run`: for the server, and for the tuner, which runs in a container like the server's."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import Node, Settings
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.vllm import on_hub, revision


def server_arguments(settings: Settings, node: Node, fabric: Sequence[str]) -> list[str]:
    """What stands between `docker run --rm` and the image; `fabric` is what the node's rails need.

    @RELEASE@ stands for the release's name, which is not known before its files are.
    """
    memlock, nofile = settings["dgx_vllm_container_memlock"], settings["dgx_vllm_container_nofile"]
    memory, tuned = settings["dgx_vllm_container_memory"], settings["dgx_vllm_tuned_config_dir"]
    words = [
        *_container(settings, node["container"], "host", node["gpu"]),
        f"--pids-limit={settings['dgx_vllm_container_pids_limit']}",
        f"--ulimit=memlock={memlock}:{memlock}",
        f"--ulimit=nofile={nofile}:{nofile}",
        "--log-opt=max-size=50m",
        "--log-opt=max-file=4",
        *([f"--memory={memory}"] if memory else []),
        "--label=dgx-vllm.release=@RELEASE@",
        f"--env-file={node['config_dir']}/releases/@RELEASE@/vllm.env",
        *_volumes(settings, node["cache"]),
        *([f"--volume={tuned}:/tuned:ro"] if tuned else []),
        *fabric,
        *settings["dgx_vllm_container_extra_args"],
    ]
    return [str(word) for word in words]


def tuner_command(settings: Settings, node: Node, plan: bool) -> list[str]:
    """The whole command that tunes the MoE kernels on `node`, without network; it writes to node["tune_results"].

    With `plan` it only says what it would measure, and needs neither the GPU nor a folder to write to.
    """
    writable = [] if plan else [f"--volume={node['tune_results']}:/results"]
    commit = revision(settings, node)
    return [
        "docker",
        "run",
        "--rm",
        *_container(settings, node["tune_container"], "none", [] if plan else node["gpu"]),
        "--env=HF_HOME=/models",
        "--env=HF_HUB_OFFLINE=1",
        "--env=TRITON_CACHE_DIR=/cache/triton",
        *_volumes(settings, "" if plan else node["cache"]),
        *writable,
        "--entrypoint=python3",
        node["image"],
        *("-m", "moe_config", "tune"),
        *("--model", str(settings["dgx_vllm_model"])),
        *("--tp", str(settings["dgx_vllm_tensor_parallel_size"])),
        *("--budget", str(settings["dgx_vllm_tune_budget"])),
        *("--output", "/results"),
        *(["--revision", commit] if commit else []),
        *(["--plan"] if plan else []),
    ]


def _container(settings: Settings, name: str, network: str, gpu: Sequence[str]) -> list[str]:
    """Name, network and GPU, with no capabilities and no way to gain any."""
    return [
        f"--name={name}",
        "--init",
        f"--network={network}",
        "--oom-score-adj=500",
        *gpu,
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        f"--shm-size={settings['dgx_vllm_container_shm_size']}",
    ]


def _volumes(settings: Settings, cache: str) -> list[str]:
    """The models and a model folder, both read-only, and the cache if there is one."""
    model = str(settings["dgx_vllm_model"])
    return [
        f"--volume={settings['dgx_vllm_models_dir']}:/models:ro",
        *([f"--volume={cache}:/cache"] if cache else []),
        *([] if on_hub(settings) else [f"--volume={model}:{model}:ro"]),
    ]
