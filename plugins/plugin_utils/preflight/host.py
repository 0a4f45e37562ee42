"""Preflight checks of the machine, its GPU and its container engine."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.cdi import reboot_pending
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import (
    Settings,
    State,
    numbers,
)

SYSTEMS = {"ubuntu": ("24.04",), "debian": ("12", "13")}
"""Systems that the role is written for: DGX OS 7 is Ubuntu 24.04; its tests run on Debian 12."""

FIRST_DRIVER = 580
"""CUDA 13, which the image brings, needs this driver branch or a newer one (NVIDIA's compatibility table)."""

CDI_DOCKER = (25,)
"""The first Docker release that injects devices by CDI."""

BAD_KERNELS = frozenset({"7.0.0-1019-nvidia"})
"""Kernels with Kexec HandOver on, for nodes on which /boot cannot be read."""

RESTARTED = ("always", "unless-stopped")
"""Restart policies with which Docker starts a container again after its own restart; on-failure depends on its end."""

CONTAINER = "dgx-vllm"

HANDOVER_OFF = "kho=off"
"""The boot parameter that turns Kexec HandOver off."""


def gpu(check: Check, state: State, settings: Settings) -> Finding:
    """A GB10 by name and by compute capability; OEM machines have other product names, so DMI is not read."""
    capability, wanted = settings.get("capability", "12.1"), settings.get("gpu_name", "GB10")
    if state["gpu"]["error"]:
        reboot = "version mismatch" in state["gpu"]["error"].lower()
        return check.failed(
            "no GPU",
            f"nvidia-smi: {state['gpu']['error']}",
            "reboot: the driver was updated, but its old module is still loaded"
            if reboot
            else "install this system's NVIDIA driver (DGX OS brings it); nvidia-smi must list the GPU",
        )
    gpus = state["gpu"]["gpus"]
    found = ", ".join(f"{card['name']} (capability {card['compute_capability']})" for card in gpus)
    if all(wanted in card["name"] and card["compute_capability"] == capability for card in gpus):
        return check.passed(found, "nvidia-smi")
    return check.failed(
        found,
        f"nvidia-smi does not show an NVIDIA {wanted} with compute capability {capability}, "
        "the only GPU that this role's patch and MoE configs are made for",
        "remove this host from the inventory group",
    )


def driver(check: Check, state: State, settings: Settings) -> Finding:
    """The driver is not on the deny list and new enough for CUDA."""
    gpus = state["gpu"]["gpus"]
    if not gpus:
        return check.warned("none", "without a GPU there is no driver version to check", "see the check gpu")
    version = str(gpus[0]["driver_version"])
    for pattern in settings.get("driver_denied") or []:
        if fnmatchcase(version, str(pattern)):
            note = (
                "; 590.x: CUDA graphs deadlock on GB10, reported by users"
                if version.startswith("590.")
                else ""
            )
            return check.failed(
                version,
                f"dgx_vllm_driver_denied contains {pattern}{note}",
                "install a driver that is not on the list (DGX OS 7 comes with 580.x) and reboot",
            )
    if numbers(version)[:1] < (FIRST_DRIVER,):
        return check.failed(
            version,
            f"CUDA 13 in the image needs driver {FIRST_DRIVER} or newer (NVIDIA's CUDA compatibility table)",
            f"install driver {FIRST_DRIVER}.x and reboot",
        )
    versions = state["gpu"].get("driver") or {}
    if reboot_pending(versions):
        return check.warned(
            f"{versions['loaded']} loaded, {versions['installed']} installed",
            "the driver was updated, and a container that starts now gets libraries that do not fit the loaded module",
            "reboot the node before the server has to start again",
        )
    return check.passed(version, "nvidia-smi; not on dgx_vllm_driver_denied")


def architecture(check: Check, state: State, settings: Settings) -> Finding:
    """A GB10 is aarch64."""
    wanted = list(settings.get("architectures") or ["aarch64"])
    if state["arch"] in wanted:
        return check.passed(state["arch"], "uname -m")
    return check.failed(
        str(state["arch"]),
        f"a GB10 is {' or '.join(wanted)}, and the image is built for that",
        "remove this host from the inventory group",
    )


def operating_system(check: Check, state: State, settings: Settings) -> Finding:
    """A system with apt that the role supports."""
    system = state["os"]
    found = system["pretty_name"] or f"{system['id'] or 'unknown'} {system['version_id']}".strip()
    versions = (settings.get("systems") or SYSTEMS).get(system["id"])
    known = "; ".join(f"{name} {', '.join(known)}" for name, known in SYSTEMS.items())
    if versions is None:
        return check.failed(
            found,
            f"the role installs packages with apt on {known}",
            "use one of these systems, or install Docker and the toolkit yourself and accept this check",
        )
    if system["version_id"] in versions:
        return check.passed(found, "os-release")
    return check.warned(
        found,
        f"the role is tested on {known} only",
        "continue if its apt repositories have Docker and the NVIDIA container toolkit supports it",
    )


def kernel(check: Check, state: State, settings: Settings) -> Finding:
    """Neither the running kernel nor the next one takes the memory that RDMA registers for Kexec HandOver.

    The reserved area (9 GiB on a Spark) becomes CMA, pages of it cannot be pinned for long, and ibv_reg_mr fails with
    ENOMEM: reported by users for 7.0.0-1019-nvidia and for Ubuntu's 7.0.0-31.
    """
    kernels = state["kernel"]
    running, installed = kernels["running"], kernels["installed"]
    handover = set(kernels.get("handover") or ()) | BAD_KERNELS
    if HANDOVER_OFF in kernels["command_line"].split():
        return check.passed(running or "unknown", f"booted with {HANDOVER_OFF}")
    remedy = f"add {HANDOVER_OFF} to GRUB_CMDLINE_LINUX in /etc/default/grub, run update-grub and reboot"
    if running in handover:
        reason = "RDMA memory registration fails under its Kexec HandOver (reported by users)"
        if int(settings.get("world_size", 1)) > 1:
            return check.failed(running, f"{reason}, so NCCL cannot start", remedy)
        return check.warned(running, f"{reason}; a standalone node does without RDMA", remedy)
    following = installed[-1] if installed else ""
    if following in handover:
        return check.warned(
            f"{running}, next {following}",
            "/boot: the kernel that boots next has Kexec HandOver on, and RDMA memory registration fails under it "
            "(reported by users)",
            remedy,
        )
    return check.passed(running or "unknown", "Kexec HandOver is not on by default")


def kernel_module(check: Check, state: State, settings: Settings) -> Finding:
    """The kernel that boots next must have its nvidia module, or the GPU is gone after the next reboot."""
    installed, lacking = state["kernel"]["installed"], state["kernel"]["without_nvidia_module"]
    if not lacking:
        return check.passed(f"{len(installed)} kernels" if installed else "none listed", "/lib/modules")
    found = f"no nvidia module for {', '.join(lacking)}"
    remedy = f"install the nvidia module package of kernel {lacking[-1]}, or remove that kernel"
    if installed and installed[-1] in lacking:
        return check.failed(
            found,
            "/lib/modules: this kernel boots next and has no nvidia.ko, so the GPU is gone after a reboot",
            remedy,
        )
    return check.warned(
        found, "/lib/modules: without nvidia.ko the GPU is gone once this kernel is booted", remedy
    )


def apt(check: Check, state: State, settings: Settings) -> Finding:
    """No repository is configured twice with different keys: apt then refuses to read any."""
    entries: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in state.get("apt") or ():
        place = (same_repository(one["uri"], state["arch"]), one["suite"])
        entries.setdefault(place, {}).setdefault(one["signed_by"], []).append(one["file"])
    for (uri, _), keys in entries.items():
        if len(keys) < 2:
            continue
        files = sorted({file for places in keys.values() for file in places})
        finding = (
            f"{uri} in {' and '.join(files)}",
            "the files name different keys (Signed-By) for one repository, and apt then reads none at all",
            f"keep one of {' and '.join(files)} and remove the other",
        )
        complete = state["docker"]["installed"] and state["nvidia_ctk"]["path"]
        return check.warned(*finding) if complete else check.failed(*finding)
    return check.passed(f"{len(entries)} repositories")


def same_repository(uri: str, machine: str) -> str:
    """A repository's address in the one way in which it is compared: apt's $(ARCH) filled in, no slash at the end."""
    architecture = {"aarch64": "arm64", "x86_64": "amd64"}.get(machine, machine)
    return uri.replace("$(ARCH)", architecture).rstrip("/")


def docker(check: Check, state: State, settings: Settings) -> Finding:
    """Docker is installed and answers; the role installs it if it is missing and starts it if it is stopped."""
    engine, configuration = state["docker"], state["daemon_json"]
    if configuration["error"]:
        return check.failed(
            "/etc/docker/daemon.json",
            f"it {configuration['error']}, so neither Docker nor nvidia-ctk can use it",
            "correct or move the file; the role has not changed it",
        )
    if not engine["installed"]:
        return check.warned(
            "not installed", "the role will install Docker", "nothing to do, unless you want your own package"
        )
    package, wanted = settings.get("docker_package", "docker.io"), settings.get("docker_version")
    if wanted and state["packages"][package] is None:
        return check.failed(
            f"{engine['version'] or 'an engine'} without the package {package}",
            f"dgx_vllm_docker_version ({wanted}) would install {package} over the engine of another package",
            "leave dgx_vllm_docker_version empty, or set dgx_vllm_docker_package to the package of this engine",
        )
    if engine["running"] and (state.get("image") or {}).get("error"):
        return check.failed(
            "no answer about the image",
            f"docker image inspect: {state['image']['error']}",
            "see with docker image ls that Docker answers, then run this again",
        )
    if engine["timed_out"]:
        return check.failed(
            "no answer",
            f"docker info: {engine['error']}; an engine that may run is not restarted, as that ends other containers",
            "run it again on an idle machine; if it hangs, systemctl restart docker at a quiet moment",
        )
    if not engine["running"]:
        return check.warned(
            "installed, not running",
            f"docker info: {engine['error']}",
            "nothing to do, the role starts it; if that fails, journalctl -u docker says why",
        )
    version = str(engine["version"])
    if settings.get("gpu_access") == "cdi" and numbers(version)[:1] < CDI_DOCKER:
        return check.failed(
            version,
            "dgx_vllm_gpu_access is cdi, and Docker supports CDI from version 25 on",
            "install Docker 25 or newer, or set dgx_vllm_gpu_access to auto",
        )
    return check.passed(version, "docker info")


def _uses_cdi(state: State, settings: Settings) -> bool:
    access = settings.get("gpu_access", "auto")
    return access == "cdi" or (access == "auto" and numbers(state["docker"]["version"])[:1] >= CDI_DOCKER)


def cgroup_driver(check: Check, state: State, settings: Settings) -> Finding:
    """With the systemd driver and without CDI, a container loses the GPU at `systemctl daemon-reload`."""
    used = state["docker"]["cgroup_driver"]
    if not used:
        return check.passed("unknown yet", "Docker is not running; the stage runtime checks it")
    if used != "systemd" or _uses_cdi(state, settings):
        return check.passed(used, "docker info")
    return check.failed(
        used,
        "with this driver and without CDI a container loses the GPU at systemctl daemon-reload",
        "use Docker 25 or newer with dgx_vllm_gpu_access: cdi, or set "
        '"exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json',
    )


def units(check: Check, state: State, settings: Settings) -> Finding:
    """systemd told of the role's units: what it did not tell of may well be there, and serve."""
    for what, error in (
        ("service", state["service"].get("error")),
        ("watch", (state.get("watch") or {}).get("error")),
    ):
        if error:
            return check.failed(
                "not known",
                f"systemctl show gave no answer about the unit of the {what}: {error}",
                "see with systemctl status that systemd answers, then run this again",
            )
    return check.passed("known", "systemctl show")


def container_name(check: Check, state: State, settings: Settings) -> Finding:
    """The name that the server's container gets is not that of a container of somebody else."""
    container = state.get("container") or {}
    if state["docker"]["running"] and container.get("error"):
        return check.failed(
            "not known",
            f"docker container inspect {CONTAINER} gave no answer: {container['error']}",
            "see with docker ps that Docker answers, then run this again",
        )
    # Version 0.1 gave its containers no label: that of our unit while it runs is ours.
    serving = (state.get("service") or {}).get("active_state") == "active"
    if container.get("id") and not container.get("release") and not serving:
        return check.failed(
            CONTAINER,
            "a container that this role did not make has the name that the server's container needs",
            f"rename it (docker rename {CONTAINER} NAME) or remove it",
        )
    return check.passed("free or ours", f"docker container inspect {CONTAINER}")


def containers(check: Check, state: State, settings: Settings) -> Finding:
    """No container of others ends for good when Docker restarts, unless the operator wants that."""
    engine = state["docker"]
    if engine["running"] and engine.get("containers_error") and settings.get("docker_restarts"):
        return check.failed(
            "not known",
            f"docker ps gave no answer ({engine['containers_error']}), and Docker must restart for its new "
            "configuration, which ends containers of others",
            "see with docker ps that Docker answers, then run this again",
        )
    lost = [one["name"] for one in engine["containers"] if one.get("restart") not in RESTARTED]
    if not settings.get("docker_restarts"):
        return check.passed(f"{len(engine['containers'])} of others", "Docker need not restart")
    if not lost or engine.get("live_restore"):
        return check.passed(f"{len(engine['containers'])} of others", "they come back after Docker's restart")
    found = ", ".join(lost)
    reason = "Docker must restart for its new configuration, and these have no restart policy that brings them back"
    if settings.get("docker_restart"):
        return check.warned(
            found, f"{reason}; dgx_vllm_docker_restart allows it", "start them again afterwards"
        )
    return check.failed(
        found,
        reason,
        f"give them one (docker update --restart=unless-stopped {' '.join(lost)}), end them, or set "
        "dgx_vllm_docker_restart: true",
    )


def time_sync(check: Check, state: State, settings: Settings) -> Finding:
    """A wrong clock breaks TLS, signed repositories and the order of logs."""
    synchronized = state["time"]["synchronized"]
    if synchronized:
        return check.passed("synchronized", "timedatectl")
    return check.warned(
        "unknown" if synchronized is None else "not synchronized",
        "timedatectl: a wrong clock breaks TLS and signed package lists",
        "enable time synchronization: timedatectl set-ntp true",
    )
