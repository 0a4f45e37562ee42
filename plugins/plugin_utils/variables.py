"""Check the role's variables by name and by value, before anything is read from a node."""

from __future__ import annotations

import ipaddress
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import kinds
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import container_arguments, extra_arguments
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import setting_table as table

Settings = Mapping[str, Any]

Specs = Mapping[str, Mapping[str, Any]]
"""The options of argument_specs.yml, by name."""

OWN_ENVIRONMENT = {
    "MODEL": "model",
    "HOST": "host",
    "PORT": "port",
    "VLLM_API_KEY": "api_key",
    "HF_TOKEN": "hf_token",
    "TENSOR_PARALLEL_SIZE": "tensor_parallel_size",
    "MAX_MODEL_LEN": "max_model_len",
    "MAX_NUM_SEQS": "max_num_seqs",
    "SHUTDOWN_TIMEOUT": "stop_timeout",
    "RAY_START": "executor",
    "GPU_MEMORY_UTIL": "gpu_memory_utilization",
    "VLLM_EXTRA_ARGS": "extra_args",
    "VLLM_TUNED_CONFIG_FOLDER": "tuned_config_dir",
    "DGX_VLLM_FP8_LINEAR": "fp8_linear",
    "DGX_VLLM_FP8_MOE": "fp8_moe",
}
# Set by the role to mounted folders; which of two lines with the same name counts would be an accident.
RESERVED_ENVIRONMENT = (
    "HF_HOME", "HF_HUB_OFFLINE", "HF_MODULES_CACHE", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE",
)  # fmt: skip
# Set for the download by variables of their own, or to what the role mounts.
OWN_DOWNLOAD = {
    "HF_TOKEN": "set dgx_vllm_hf_token",
    "HF_ENDPOINT": "set dgx_vllm_hf_endpoint",
    "HF_HOME": "set dgx_vllm_models_dir",
    "HF_HUB_CACHE": "set dgx_vllm_models_dir",
    "HF_HUB_OFFLINE": "remove it, because a download is never offline",
}
FOLDERS = ("models_dir", "cache_dir", "tuned_config_dir")
# What uninstall removes whole: the releases, and the role's own below its data folder.
OWN_FOLDERS = (
    "/etc/dgx-vllm", "/var/lib/dgx-vllm/cache", "/var/lib/dgx-vllm/build", "/var/lib/dgx-vllm/state",
    "/var/lib/dgx-vllm/tuning",
)  # fmt: skip
HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
IMAGE_WITH_VERSION = re.compile(r".+(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})", re.ASCII)
LONGEST_ARGUMENTS = 60000
"""Characters of all extra arguments together: Docker reads at most 64 KiB of a line of an environment file."""


def unknown_variables(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """One sentence per name that is not known, with the nearest known name if there is one."""
    known = sorted(set(known))
    sentences = []
    for name in sorted(set(names) - set(known)):
        close = get_close_matches(name, known, n=1, cutoff=0.8)
        hint = f"did you mean {close[0]}?" if close else "remove it, or see the variable table of the README."
        sentences.append(f"{name} is not a variable of this role, {hint}")
    return sentences


def mistakes(settings: Settings, specs: Specs, row: Mapping[str, Any]) -> list[str]:
    """One sentence per mistake in `settings`: what is wrong, where, and how to fix it.

    `settings` maps every public variable (with its `dgx_vllm_` prefix) to its value, `row` is the host's row of the
    plan. No sentence repeats the value of a secret.
    """
    wrong = [
        sentence
        for name, spec in specs.items()
        for sentence in table.wrong(
            name,
            table.TABLE[name.removeprefix("dgx_vllm_")],
            settings.get(name),
            secret=bool(spec.get("no_log")),
        )
    ]
    if wrong:
        return list(dict.fromkeys(wrong))
    values = {name.removeprefix("dgx_vllm_"): table.plain(settings[name]) for name in specs}
    folders = [*_folders(values)]
    if folders or values["state"] == "absent":
        return folders
    return [
        *_replica(values, row),
        *_model(values),
        *_image(values),
        *_arguments(values),
        *_environment(values),
        *_firewall(values, row),
    ]


def _folders(values: Settings) -> Iterator[str]:
    yield from _overlaps(values)
    if values["model"].startswith("/") and ":" in values["model"]:
        yield f"dgx_vllm_model is {values['model']!r}; rename the folder, because Docker splits a path at a colon."


def _overlaps(values: Settings) -> Iterator[str]:
    """Folders inside each other, or inside what uninstall removes: weights would go with a cache."""
    places = {f"dgx_vllm_{name}": posixpath.normpath(values[name]) for name in FOLDERS if values[name]}
    if values["model"].startswith("/"):
        places["dgx_vllm_model"] = posixpath.normpath(values["model"])
    for name, place in places.items():
        for owned in OWN_FOLDERS:
            if _inside(place, owned) and not (name == "dgx_vllm_cache_dir" and place == owned):
                yield f"{name} is {place}, inside {owned}, which uninstall removes; choose a folder outside."
        for other, outer in places.items():
            both_models = {name, other} == {"dgx_vllm_model", "dgx_vllm_models_dir"}
            if name != other and not both_models and _inside(place, outer):
                yield f"{name} ({place}) lies inside {other} ({outer}); choose folders beside each other."


def _inside(place: str, folder: str) -> bool:
    return place == folder or place.startswith(f"{folder.rstrip('/')}/")


def _replica(values: Settings, row: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes that the plan cannot see, because it is made from inventory variables alone."""
    tensor, pipeline = int(values["tensor_parallel_size"]), int(values["pipeline_parallel_size"])
    size = int(row["world_size"])
    if values["replica"] and row["replica"] != values["replica"]:
        yield (
            f"dgx_vllm_replica is {values['replica']!r} on {row['host']}, but not in the inventory; set it there, as a "
            "host or group variable, because all nodes of a replica must see it."
        )
    elif tensor * pipeline != size:
        nodes = "one node, which has one GPU" if size == 1 else f"{size} nodes with one GPU each"
        yield (
            f"dgx_vllm_tensor_parallel_size ({tensor}) times dgx_vllm_pipeline_parallel_size ({pipeline}) is "
            f"{tensor * pipeline}, but the replica {row['replica']} has {nodes}; make them equal, or give all its "
            "nodes the same dgx_vllm_replica in the inventory."
        )
    interfaces, rails = values["fabric_interfaces"], len(row["rails"])
    if size > 1 and interfaces and not len(set(interfaces)) == len(interfaces) == rails:
        yield (
            f"dgx_vllm_fabric_interfaces names {', '.join(interfaces)} on {row['host']}; name {rails} different "
            "interfaces, one for each planned rail in its order (playbooks/topology.yml), or none to find them."
        )


def _model(values: Settings) -> Iterator[str]:
    model = values["model"]
    if not model:
        yield "dgx_vllm_model is not set; write a Hugging Face id (org/name) or the absolute path of a model folder."
    elif not model.startswith("/") and not HUB_ID.fullmatch(model):
        yield f"dgx_vllm_model is {model!r}; set it to a Hugging Face id (org/name) or an absolute path."


def _image(values: Settings) -> Iterator[str]:
    source, image = values["image_source"], values["image"]
    if source == "build":
        if not image or IMAGE_WITH_VERSION.fullmatch(image.rsplit("/", 1)[-1]):
            yield (
                f"dgx_vllm_image is {image!r}; with dgx_vllm_image_source: build set it to a name without a tag, "
                "because the role tags it by content."
            )
    elif not IMAGE_WITH_VERSION.fullmatch(image):
        yield f"dgx_vllm_image is {image!r}; add a tag or a digest (name:tag or name@sha256:…)."
    if source == "load" and not values["image_archive"]:
        yield "dgx_vllm_image_archive is not set; dgx_vllm_image_source: load reads that file on the node."
    if bool(values["registry_username"]) != bool(values["registry_password"]):
        yield "Only one of dgx_vllm_registry_username and dgx_vllm_registry_password is set; set both or neither."
    if values["fabric_repo_url"] and not (
        values["fabric_repo_key_url"] and values["fabric_repo_key_fingerprint"]
    ):
        yield (
            "dgx_vllm_fabric_repo_url has no key; set dgx_vllm_fabric_repo_key_url and "
            "dgx_vllm_fabric_repo_key_fingerprint too."
        )


def _arguments(values: Settings) -> Iterator[str]:
    yield from extra_arguments.mistakes(values["extra_args"])
    if len(shlex.join(map(str, values["extra_args"]))) > LONGEST_ARGUMENTS:
        yield f"dgx_vllm_extra_args is longer than {LONGEST_ARGUMENTS} characters; put long values into files."
    yield from container_arguments.mistakes(values["container_extra_args"])


def _environment(values: Settings) -> Iterator[str]:
    for name in values["extra_env"]:
        if name in OWN_ENVIRONMENT:
            yield f"dgx_vllm_extra_env has {name}; set dgx_vllm_{OWN_ENVIRONMENT[name]} instead."
        elif name in RESERVED_ENVIRONMENT:
            yield f"dgx_vllm_extra_env has {name}, which the role sets to a mounted folder; remove it."
        elif name == "VLLM_PORT":
            yield "dgx_vllm_extra_env has VLLM_PORT, vLLM's internal port; the API's port is dgx_vllm_port."
    capability = values["extra_env"].get("DGX_VLLM_ASSUME_CAPABILITY")
    if capability is not None and not kinds.fits(kinds.CAPABILITY, str(capability)):
        yield f"dgx_vllm_extra_env has DGX_VLLM_ASSUME_CAPABILITY; set it to {kinds.CAPABILITY.expected}."
    for name in values["model_environment"]:
        if name in OWN_DOWNLOAD:
            yield f"dgx_vllm_model_environment has {name}; {OWN_DOWNLOAD[name]}."


def _firewall(values: Settings, row: Mapping[str, Any]) -> Iterator[str]:
    guarded = boolean(values["firewall"], strict=False) and row.get("is_head", True)
    if guarded and not values["firewall_api_from"] and not _is_loopback(values["host"]):
        yield (
            f"dgx_vllm_firewall is on and dgx_vllm_host is {values['host']}, but nobody may reach the API; write the "
            "networks of its clients into dgx_vllm_firewall_api_from (0.0.0.0/0 and ::/0 for everybody), or set "
            "dgx_vllm_host: 127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
