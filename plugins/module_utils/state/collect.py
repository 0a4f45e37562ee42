"""Everything the role needs to know about a node, read in one call and without changing anything."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.firewall.table import firewall
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import wanted_of
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import weights
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import (
    apt,
    cdi,
    gpu,
    host,
    ledger,
    ports,
    service,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import docker as docker_cli
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.desktop import desktop

NEEDRESTART = "/etc/needrestart/conf.d/dgx-vllm.conf"
UNIT, WATCH_UNIT, CONTAINER = "dgx-vllm.service", "dgx-vllm-watch.service", "dgx-vllm"


class Query(NamedTuple):
    """The module's parameters: what to look for, and where."""

    image: str = ""
    base_image: str = ""
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
    """The whole state of the node under `root`. Commands run in parallel: most of their time is waiting.

    Raises LedgerError when the role's own ledger is damaged.
    """
    with ThreadPoolExecutor(max_workers=6) as pool:
        gpus = pool.submit(gpu.gpus, runner)
        engine = pool.submit(docker_cli.engine, runner)
        container = pool.submit(docker_cli.container, runner, CONTAINER)
        containers = pool.submit(docker_cli.containers, runner, CONTAINER)
        image = pool.submit(docker_cli.image, runner, query.image)
        base = pool.submit(docker_cli.base_image, runner, query.base_image)
        unit = pool.submit(service.service, root, runner, UNIT)
        watch = pool.submit(service.watch, root, runner, WATCH_UNIT, host.under(root, query.config_dir))
        clock = pool.submit(host.clock, runner, query.now)
        packages = pool.submit(host.packages, query.packages, runner)
        toolkit = pool.submit(gpu.toolkit, root, runner)
        wall = pool.submit(firewall, root, runner)
        kernel = host.kernel(root)
        main = {"model": query.model, "revision": query.model_revision, "files": query.model_files}
        model, *others = (_weights(root, query, one) for one in (main, *query.other_models))
    ours = container.result()
    rows, rows_error = containers.result()
    docker = dict(engine.result(), containers=rows, containers_error=rows_error)
    config_dir, records = host.under(root, query.config_dir), host.under(root, query.data_dir) / "state"
    return {
        "arch": machine or platform.machine(),
        "os": host.operating_system(root),
        "kernel": kernel,
        "gpu": {**gpus.result(), "driver": cdi.driver(root)},
        "boot_id": host.read_text(root / "proc/sys/kernel/random/boot_id").strip(),
        "memory": host.memory(root),
        "desktop": desktop(root),
        "disks": {
            "docker": host.disk(root, docker_cli.image_folder(root, docker)),
            "models": host.disk(root, model["path"] if model["kind"] == "path" else query.models_dir),
        },
        "port": ports.owner(root, runner, query.port, ours["id"] or "", UNIT),
        "time": clock.result(),
        "packages": packages.result(),
        "docker": docker,
        "daemon_json": docker_cli.daemon_json(root / "etc/docker/daemon.json"),
        "registry_login": docker_cli.registry_login(config_dir / "docker/config.json"),
        "nvidia_ctk": toolkit.result(),
        "cdi": {
            "specs": cdi.specifications(root, docker["cdi_spec_dirs"] or cdi.FOLDERS),
            "refreshes": cdi.refreshes(root),
        },
        "image": image.result(),
        "base_image": base.result(),
        "model": model,
        "other_models": [{**here, **one} for one, here in zip(query.other_models, others)],
        "service": unit.result(),
        "watch": watch.result(),
        "container": ours,
        **service.releases(config_dir),
        "apt": apt.repositories(root),
        "firewall": wall.result(),
        "needrestart_sha256": service.digest(host.under(root, NEEDRESTART)),
        "ledger": ledger.read(records / "ledger.json"),
        "health": service.record(records / "health.json"),
    }


def _weights(root: Path, query: Query, one: Mapping[str, Any]) -> dict[str, Any]:
    wanted = wanted_of(one["files"])
    return weights(root, one["model"], one["revision"], query.models_dir, query.data_dir, wanted)
