"""What an error text of vLLM, Docker or the model hub means, and how to fix it.

One table, read from the top: the first entries are causes, the last ones only say that something failed. The texts
were read from the sources of vLLM 0.14 to 0.33, Docker Engine, the NVIDIA container toolkit and huggingface_hub.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Pattern


class Cause(NamedTuple):
    """A known error recognised in a log: its name, what it means, how to fix it, and the line that shows it."""

    id: str
    sentence: str
    remedy: str
    line: str

    @property
    def text(self) -> str:
        """Meaning and remedy."""
        return f"{self.sentence} {self.remedy}"


class Entry(NamedTuple):
    """One row of the table; {} in the sentence stands for the pattern's group."""

    id: str
    pattern: Pattern[str]
    sentence: str
    remedy: str


CUTLASS = "cutlass_fp8"
DEFAULT_MOE_CONFIG = "default_moe_config"

REBUILD = (
    "Build or pull an image whose manifest says patched or upstream for both routes, then run site.yml again."
)

_ERROR = re.compile(r"(?:^|\s)(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception): .+")
_ECHO = re.compile(r"EngineDeadError|Engine core initialization failed|WorkerProc initialization failed")


def _entry(name: str, pattern: str, sentence: str, remedy: str) -> Entry:
    return Entry(name, re.compile(pattern, re.IGNORECASE), sentence, remedy)


TABLE: tuple[Entry, ...] = (
    _entry(
        "not_started",
        r"\[dgx-vllm\] does not start: (.+?)\.?$",
        "The unit does not start: {}.",
        "Earlier lines are in journalctl -u dgx-vllm.service on the node.",
    ),
    _entry(
        CUTLASS,
        r"No compiled cutlass_scaled_mm|No suitable CUTLASS kernel found",
        "FP8 linear layers were sent to CUTLASS, which has no kernel for this GPU in this image.",
        "Set dgx_vllm_fp8_linear to torch and use a patched image:"
        " `python3 -m sm121_patch status` in the container shows what is patched.",
    ),
    _entry(
        "driver_mismatch",
        r"Driver/library version mismatch|unsupported display driver / cuda driver combination",
        "The NVIDIA driver was updated, and its old module is still loaded.",
        "Reboot the node, or end everything that uses the GPU and load the new module.",
    ),
    _entry(
        "driver_old",
        r"unsatisfied condition: cuda>=|driver on your system is too old|cudaErrorUnsupportedPtxVersion"
        r"|PTX was compiled with an unsupported toolchain|driver version is insufficient for CUDA runtime",
        "The image's CUDA is newer than the node's driver supports.",
        "Install a newer driver (DGX OS: apt full-upgrade) and reboot, or use an image with an older CUDA.",
    ),
    _entry(
        "gpus_in_cdi_mode",
        r"invoking the NVIDIA Container Runtime Hook directly",
        "The container toolkit is set to a mode that does not take --gpus.",
        "Set dgx_vllm_gpu_access to cdi (Docker 25 or newer), or mode to auto in the section"
        " nvidia-container-runtime of /etc/nvidia-container-runtime/config.toml.",
    ),
    _entry(
        "cdi_stale",
        r"error mounting \"[^\"]*nvidia[^\"]*\".*no such file or directory"
        r"|error mounting \"[^\"]*/libcuda[^\"]*\".*no such file or directory"
        r"|CDI device injection failed: .*no such file or directory|failed to stat CDI host device",
        "The CDI specification names a file of another driver, or a device node that is not there.",
        "Run systemctl restart nvidia-cdi-refresh.service on the node, or with a toolkit before 1.18 nvidia-ctk cdi"
        " generate --output=/etc/cdi/nvidia.yaml; if nvidia-smi fails too, reboot first.",
    ),
    _entry(
        "gpu_driver_hook",
        r"could not select device driver \"\" with capabilities: \[\[gpu\]\]",
        "Docker cannot use GPUs: the NVIDIA container toolkit is missing, or"
        " Docker was not restarted after its installation.",
        "Run site.yml --tags runtime, then systemctl restart docker.",
    ),
    _entry(
        "nvidia_runtime",
        r"unknown or invalid runtime name: nvidia|Unknown runtime specified nvidia",
        "Docker does not know the runtime nvidia.",
        "Run site.yml --tags runtime: it registers the runtime in /etc/docker/daemon.json and restarts Docker.",
    ),
    _entry(
        "cdi_device",
        r"unresolvable CDI devices|CDI device injection failed|failed to discover GPU vendor from CDI",
        "The container asked for a GPU by CDI, and no CDI specification on the node describes one.",
        "Run site.yml --tags runtime, or nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml on the node.",
    ),
    _entry(
        "nvidia_container_cli",
        r"nvidia-container-cli:.*|nvml error: driver not loaded|Failed to initialize NVML",
        "The NVIDIA container toolkit could not reach the driver.",
        "Run nvidia-smi on the node; if it fails, the running kernel lacks its nvidia module:"
        " reboot into a kernel that has it or reinstall the driver.",
    ),
    _entry(
        "no_gpu",
        r"No CUDA GPUs are available|The NVIDIA Driver was not detected|Failed to infer device type"
        r"|Found no NVIDIA driver on your system",
        "vLLM sees no GPU inside the container.",
        "Run site.yml --tags runtime; check nvidia-smi on the node and in the container.",
    ),
    _entry(
        "cuda_init",
        r"CUDA unknown error - this may be due to an incorrectly set up environment",
        "CUDA cannot start in the container, as without /dev/nvidia-uvm.",
        "Run nvidia-modprobe -u -c 0 and systemctl restart nvidia-cdi-refresh.service on the node, then site.yml.",
    ),
    _entry(
        "memory_free",
        r"Free memory on device .* is less than (?:desired GPU memory utilization|the engine's budget)",
        "Less memory is free than dgx_vllm_gpu_memory_utilization asks for.",
        "Stop other programs that use memory on the node, or lower dgx_vllm_gpu_memory_utilization, which counts also"
        " with dgx_vllm_kv_cache_memory_bytes; keep dgx_vllm_drop_page_cache on.",
    ),
    _entry(
        "memory_kv_blocks",
        r"No available memory for the cache blocks",
        "The weights leave no memory for the KV cache.",
        "Raise dgx_vllm_gpu_memory_utilization (not above 0.90), use a smaller model, or spread it over more nodes.",
    ),
    _entry(
        "kv_cache_too_small",
        r"KV cache is needed, which is larger than the available KV cache memory"
        r"|max seq len \(\d+\) is larger than the maximum number of tokens that can be stored in KV cache",
        "The KV cache is too small for one request of dgx_vllm_max_model_len tokens.",
        "Lower dgx_vllm_max_model_len, or raise dgx_vllm_gpu_memory_utilization or dgx_vllm_kv_cache_memory_bytes.",
    ),
    _entry(
        "memory_gpu",
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUDA error: out of memory",
        "The GPU ran out of memory, which on GB10 is the memory of the whole machine.",
        "Lower dgx_vllm_gpu_memory_utilization, dgx_vllm_max_num_seqs or dgx_vllm_max_model_len.",
    ),
    _entry(
        "memory_killed",
        r"\boom-kill\b|Out of memory: Killed process|Memory cgroup out of memory",
        "The kernel killed the server because memory ran out.",
        "Lower dgx_vllm_gpu_memory_utilization, or raise dgx_vllm_container_memory if it is set.",
    ),
    _entry(
        "disk_full",
        r"No space left on device|Not enough free disk space",
        "A disk is full.",
        "Free space in the models directory, the cache directory or Docker's data root (df -h shows which is full).",
    ),
    _entry(
        "permission",
        r"\[Errno 13\]|PermissionError: ",
        "The server is not allowed to read or write one of its own files.",
        "Check owner and mode of the path in the line: the models and cache"
        " directories must belong to the container's user.",
    ),
    _entry(
        "port_in_use",
        r"\[Errno 98\]|Address already in use|port is already allocated",
        "Another process uses the port.",
        "Stop that process (ss -ltnp shows it), or set dgx_vllm_port to a free port.",
    ),
    _entry(
        "argument_unknown",
        r"unrecognized arguments?:.*",
        "vLLM does not know one of its arguments.",
        "Remove it from dgx_vllm_extra_args or VLLM_EXTRA_ARGS: `vllm serve"
        " --help=all` in the image lists the known ones.",
    ),
    _entry(
        "argument_invalid",
        r"(?:vllm|api_server\.py|serve): error: argument .*|error: argument --?[\w-]+(?:/-\w+)?: .*",
        "vLLM refused the value of one of its arguments.",
        "Correct it in dgx_vllm_extra_args or in the variable that sets it.",
    ),
    _entry(
        "model_gated",
        r"GatedRepoError|Cannot access gated repo|Access to model .* is restricted"
        r"|You are trying to access a gated repo",
        "The model is gated, and this token has no access to it.",
        "Accept its licence on the model's page with the account that owns dgx_vllm_hf_token.",
    ),
    _entry(
        "model_revision",
        r"RevisionNotFoundError|Revision Not Found for url|is not a valid git identifier",
        "The model has no such revision.",
        "Set dgx_vllm_model_revision to a branch, tag or commit that its page lists.",
    ),
    _entry(
        "model_token",
        r"Invalid (?:user token|credentials in Authorization header)"
        r"|401 Client Error.*(?:huggingface|/resolve/|/api/models/)",
        "The model hub refused the token.",
        "Put a valid token into dgx_vllm_hf_token (Ansible Vault), or leave it empty for a public model.",
    ),
    _entry(
        "model_missing",
        r"RepositoryNotFoundError|Repository Not Found for url"
        r"|is not a local folder and is not a valid model identifier"
        r"|Invalid repository ID or local directory specified",
        "The model hub does not have this model, or hides it from this token.",
        "Check the spelling of dgx_vllm_model; for a private model set dgx_vllm_hf_token.",
    ),
    _entry(
        "model_offline",
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|outgoing traffic has been disabled",
        "The server runs offline and a file of the model, or of a model that its arguments name, is not on this node.",
        "Run site.yml --tags model: it downloads what is missing and verifies it.",
    ),
    _entry(
        "model_architecture",
        r"Model architectures .* (?:are not supported|failed to be inspected)"
        r"|does not recognize this architecture",
        "This vLLM does not know the model's architecture.",
        "Use a newer image, or a model from vLLM's list of supported models.",
    ),
    _entry(
        "model_broken",
        r"SafetensorError|MetadataIncompleteBuffer|HeaderTooLarge|Error while deserializing header",
        "A weight file is damaged.",
        "Run site.yml -e dgx_vllm_model_verify=true: it compares all checksums with the hub's, downloads again what is"
        " damaged, and starts the server. If dgx_vllm_model is a folder, copy the file into it again.",
    ),
    _entry(
        "image_tls",
        r"x509: .*|CERTIFICATE_VERIFY_FAILED|certificate signed by unknown authority",
        "The server's certificate is not trusted by this node.",
        "Put the CA certificate into /etc/docker/certs.d/HOST[:PORT]/ca.crt for a"
        " registry, otherwise into the node's trust store.",
    ),
    _entry(
        "image_denied",
        r"pull access denied|unauthorized: (?:authentication|incorrect|access)|no basic auth credentials"
        r"|denied: (?:requested )?access|insufficient_scope",
        "The registry refused the login, or this account is not allowed to pull the image.",
        "Check dgx_vllm_registry_username and dgx_vllm_registry_password (Ansible Vault), and the image's name.",
    ),
    _entry(
        "image_missing",
        r"manifest unknown|manifest for .* not found|Unable to find image .* locally|No such image",
        "There is no such image: the tag or digest does not exist at the registry.",
        "Correct dgx_vllm_image (repository, tag or @sha256 digest).",
    ),
    _entry(
        "network",
        r"no such host|Temporary failure in name resolution|Name or service not known|i/o timeout"
        r"|net/http: (?:request canceled|TLS handshake timeout)|context deadline exceeded"
        r"|Network is unreachable|No route to host|Client\.Timeout exceeded",
        "A server could not be reached from this node.",
        "Check the node's name resolution, route and proxy; at a site without internet set a mirror"
        " (dgx_vllm_hf_endpoint) or load the image from an archive (dgx_vllm_image_source: load).",
    ),
    _entry(
        "docker_down",
        r"Cannot connect to the Docker daemon|docker(?:\.service)? is not running",
        "The Docker daemon does not answer.",
        "Look at systemctl status docker and journalctl -u docker on the node.",
    ),
    _entry(
        "container_name",
        r"The container name \"[^\"]+\" is already in use",
        "A container of that name remains from an earlier run.",
        "Remove the named container (docker rm -f), then start the service again.",
    ),
    _entry(
        DEFAULT_MOE_CONFIG,
        r"Using default MoE config",
        "vLLM found no tuned MoE config for this model's shape and uses its slower default.",
        "Measure the file that the line names with playbooks/tune.yml, or put it into dgx_vllm_tuned_config_dir.",
    ),
    _entry(
        "engine_failed",
        r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed",
        "vLLM's engine did not start.",
        "The cause is above this line in the log: journalctl -u dgx-vllm.service.",
    ),
    _entry(
        "driver_banner",
        r"This container was built for NVIDIA Driver Release",
        "The image was built for a newer driver; it says so even where it works.",
        "Install a newer driver, or use an older image, if nothing else explains the failure.",
    ),
)


def explain(text: str) -> list[Cause]:
    """Every error of the table that `text` shows, most telling first, with the last line that shows it."""
    found: list[Cause] = []
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    for entry in TABLE:
        matches = (entry.pattern.search(line) for line in reversed(lines))
        match = next((match for match in matches if match), None)
        if match is not None:
            sentence = entry.sentence.format(*match.groups())
            found.append(Cause(entry.id, sentence, entry.remedy, match.string[:400]))
    return found


def root_error(text: str) -> str:
    """The last exception in a log that is a cause, not its echo in another process; "" when there is none."""
    matches = [match for line in re.split(r"[\r\n]+", text) for match in _ERROR.finditer(line)]
    causes = [match for match in matches if not _ECHO.search(match[0])]
    return causes[-1][0].strip()[:300] if causes else ""


def remedy_of(name: str) -> str:
    """The remedy of an entry by its id; KeyError for an unknown one."""
    for entry in TABLE:
        if entry.id == name:
            return entry.remedy
    raise KeyError(name)
