"""Everything the role needs to know about a node, read in one call and without changing anything."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import weights
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import cdi, gpu, host, ports, service
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import docker as docker_cli

DOCKER_ROOT = "/var/lib/docker"
NEEDRESTART = "/etc/needrestart/conf.d/dgx-vllm.conf"
UNIT, WATCH_UNIT, CONTAINER = "dgx-vllm.service", "dgx-vllm-watch.service", "dgx-vllm"


class Query(NamedTuple):
    """The module's parameters: what to look for, and where."""

    image: str = ""
    model: str = ""
    model_revision: str = "main"
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
        model = weights(root, query.model, query.model_revision, query.models_dir, query.data_dir)
    ours = container.result()
    docker = dict(engine.result(), containers=containers.result())
    config_dir, records = host.under(root, query.config_dir), host.under(root, query.data_dir) / "state"
    return {
        "arch": machine or platform.machine(),
        "os": host.operating_system(root),
        "kernel": kernel,
        "gpu": {**gpus.result(), "driver": cdi.driver(root)},
        "boot_id": host.read_text(root / "proc/sys/kernel/random/boot_id").strip(),
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
        "cdi": {
            "specs": cdi.specifications(root, docker["cdi_spec_dirs"] or cdi.FOLDERS),
            "refreshes": cdi.refreshes(root),
        },
        "image": image.result(),
        "model": model,
        "service": unit.result(),
        "watch": watch.result(),
        "container": ours,
        **service.releases(config_dir),
        "needrestart_sha256": service.digest(host.under(root, NEEDRESTART)),
        "ledger": service.record(records / "ledger.json"),
        "health": service.record(records / "health.json"),
    }
