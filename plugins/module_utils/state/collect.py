"""Everything the role needs to know about a node, read in one call and without changing anything."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import wanted_of
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import weights
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import docker as docker_cli
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import gpu, host, ports, service

DOCKER_ROOT = "/var/lib/docker"
UNIT, WATCH_UNIT, CONTAINER = "dgx-vllm.service", "dgx-vllm-watch.service", "dgx-vllm"


class Query(NamedTuple):
    """The module's parameters: what to look for, and where."""

    image: str = ""
    model: str = ""
    model_revision: str = "main"
    model_files: Mapping[str, Any] = {}
    """Which files of it count: include, exclude and load_format of the download."""
    other_models: tuple[Mapping[str, Any], ...] = ()
    """What the server needs beside it, such as a draft model: model, revision and files."""
    models_dir: str = "/var/lib/dgx-vllm/models"
    port: int = 8000
    packages: tuple[str, ...] = ()
    config_dir: str = "/etc/dgx-vllm"
    data_dir: str = "/var/lib/dgx-vllm"
    now: float = 0.0


def collect(
    query: Query, root: Path = Path("/"), runner: Runner = run, machine: str | None = None
) -> dict[str, Any]:
    """The whole state of the node under `root`. Commands run in parallel: most of their time is waiting."""
    with ThreadPoolExecutor(max_workers=6) as pool:
        gpus = pool.submit(gpu.gpus, runner)
        engine = pool.submit(docker_cli.engine, runner)
        container = pool.submit(docker_cli.container, runner, CONTAINER)
        containers = pool.submit(docker_cli.containers, runner, CONTAINER)
        image = pool.submit(docker_cli.image, runner, query.image)
        unit = pool.submit(service.service, root, runner, UNIT)
        watch = pool.submit(service.watch, root, runner, WATCH_UNIT, host.under(root, query.config_dir))
        clock = pool.submit(host.clock, runner, query.now)
        packages = pool.submit(host.packages, query.packages, runner)
        toolkit = pool.submit(gpu.toolkit, root, runner)
        kernel = host.kernel(root)
        main = {"model": query.model, "revision": query.model_revision, "files": query.model_files}
        model, *others = (_weights(root, query, one) for one in (main, *query.other_models))
    ours = container.result()
    docker = dict(engine.result(), containers=containers.result())
    config_dir, records = host.under(root, query.config_dir), host.under(root, query.data_dir) / "state"
    return {
        "arch": machine or platform.machine(),
        "os": host.operating_system(root),
        "kernel": kernel,
        "gpu": gpus.result(),
        "memory": host.memory(root),
        "disks": {
            "docker": host.disk(root, docker["root_dir"] or DOCKER_ROOT),
            "models": host.disk(root, model["path"] if model["kind"] == "path" else query.models_dir),
        },
        "port": ports.owner(root, runner, query.port, ours["id"] or "", UNIT),
        "time": clock.result(),
        "packages": packages.result(),
        "docker": docker,
        "daemon_json": docker_cli.daemon_json(root / "etc/docker/daemon.json"),
        "nvidia_ctk": toolkit.result(),
        "cdi_specs": gpu.cdi_specs(root),
        "image": image.result(),
        "model": model,
        "other_models": [{**here, "model": one["model"]} for one, here in zip(query.other_models, others)],
        "service": unit.result(),
        "watch": watch.result(),
        "container": ours,
        **service.releases(config_dir),
        "ledger": service.record(records / "ledger.json"),
        "health": service.record(records / "health.json"),
    }


def _weights(root: Path, query: Query, one: Mapping[str, Any]) -> dict[str, Any]:
    wanted = wanted_of(one["files"])
    return weights(root, one["model"], one["revision"], query.models_dir, query.data_dir, wanted)
