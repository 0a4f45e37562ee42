"""Reading vLLM's log of one run: how far it got, what it printed, what is secret in it.

The texts are those of vLLM 0.14 to 0.33. Lines may carry a process prefix such as "(EngineCore pid=7) " and a
logging header; a progress bar may put several states on one line with carriage returns.
"""

from __future__ import annotations

import json
import re
from typing import Iterable, NamedTuple

PHASES = ("starting", "loading weights", "compiling", "warming up", "serving", "failed")

MARKER_TEXT = {
    "linear": "[vLLM SM_121] Detected GB10 (SM_121) - using torch backend for FP8 linear layers",
    "moe": "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers",
}
"""The marker lines, word for word as the image prints them."""

_MILESTONES = (
    ("loading weights", re.compile(r"Starting to load model|Loading \w+ checkpoint shards")),
    (
        "compiling",
        re.compile(
            r"Model loading took|Dynamo bytecode transform|Compiling a graph|torch\.compile tak"
            r"|Loading weights took"
        ),
    ),
    (
        "warming up",
        re.compile(
            r"Available KV cache memory|GPU KV cache size|Capturing CUDA graphs|Graph capturing finished"
            r"|init engine"
        ),
    ),
    ("serving", re.compile(r"Application startup complete|Starting vLLM (?:API )?server|Uvicorn running on")),
)
_PROGRESS = re.compile(
    r"(?P<what>Loading \w+ checkpoint shards|Capturing CUDA graphs[^:]*|Downloading[^:]*|Fetching[^:]*)"
    r":\s*(?P<percent>\d+)\s*%"
)
_RUN_START = re.compile(
    r"\[dgx-vllm\] exec: |vLLM API server version|non-default args"
    r"|Initializing a V1 LLM engine|Starting to load model"
)
_WAITS = re.compile(r"\[dgx-vllm\] (?P<what>waits for up to .+)")
"""Of the program that the unit runs before the container (roles/dgx_vllm/files/start.py)."""
_CONFIG = re.compile(r"Using configuration from (?P<path>.+?\.json) for MoE layer")
_CUTLASS = re.compile(r"No compiled cutlass_scaled_mm|No suitable CUTLASS kernel found")
_DEFAULT_CONFIG = re.compile(r"Using default MoE config")
# Every repetition is bounded: clients can put text into the log, and it must not cost more than its length.
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\",]+"), r"\1 ***"),
    (re.compile(r"(?i)(--[\w-]{0,40}(?:api-key|token|passw(?:or)?d|secret)[= ])\s*[^\s'\",]+"), r"\1***"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@'\"]{1,256}@"), r"\1***@"),
    (
        re.compile(
            r"(?i)([\"']?\b[\w-]{0,40}(?:api[_-]?key|access[_-]?key|token|"
            r"(?:passw(?:or)?d|secret|credential)s?(?:[_-][\w-]{0,20})?)[\"']?\s{0,8}[:=]\s*)(?:\[[^\]]*\]|\"[^\"]*\"|'[^']*'|[^\s,}\"']+)"
        ),
        r"\1***",
    ),
)


class LogFacts(NamedTuple):
    """What the log of one run says."""

    phase: str
    progress: str
    start_retained: bool
    markers: list[str]
    config_loaded: list[str]
    default_config: str | None
    cutlass_error: str | None


class KnownLog(NamedTuple):
    """What is known of the current run's log, and from where: journal, docker, evidence or none (its start is lost)."""

    facts: LogFacts
    origin: str

    @property
    def source(self) -> str:
        """The origin in words, if it is worth saying."""
        return " (recorded by an earlier check of this run)" if self.origin == "evidence" else ""


def log_lines(text: str) -> list[str]:
    """The lines of a log; every state of a progress bar counts as one."""
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def read_log(text: str) -> LogFacts:
    """The facts of one run's log. An empty log is a run that has just started."""
    phase, progress = 0, ""
    start = False
    markers: list[str] = []
    configs: list[str] = []
    default_config: str | None = None
    cutlass_error: str | None = None
    for line in log_lines(text):
        if _RUN_START.search(line) and not start:
            start, progress = True, ""
        waits = _WAITS.search(line)
        if waits:
            progress = waits["what"]
        for name, pattern in _MILESTONES:
            if pattern.search(line) and PHASES.index(name) > phase:
                phase, progress = PHASES.index(name), ""
        match = _PROGRESS.search(line)
        if match:
            progress = f"{match['what'].strip()}: {match['percent']}%"
        markers += [name for name, marker in MARKER_TEXT.items() if marker in line and name not in markers]
        match = _CONFIG.search(line)
        if match and match["path"] not in configs:
            configs.append(match["path"])
        if _DEFAULT_CONFIG.search(line):
            default_config = line
        if _CUTLASS.search(line):
            cutlass_error = line
    if PHASES[phase] == "serving":
        progress = ""
    return LogFacts(PHASES[phase], progress, start, sorted(markers), configs, default_config, cutlass_error)


def split_runs(journal: str) -> list[tuple[str, list[str]]]:
    """The runs in `journalctl -o json` output, oldest first: (invocation id, its lines).

    Lines that systemd itself writes about a unit carry INVOCATION_ID, those of the unit's processes
    _SYSTEMD_INVOCATION_ID; a message with control characters comes as a list of byte values.
    """
    runs: dict[str, list[str]] = {}
    for raw in journal.splitlines():
        try:
            entry = json.loads(raw)
        except ValueError:
            continue
        if not isinstance(entry, dict):
            continue
        invocation = entry.get("_SYSTEMD_INVOCATION_ID") or entry.get("INVOCATION_ID") or ""
        message = entry.get("MESSAGE")
        if isinstance(message, list):
            message = bytes(value for value in message if isinstance(value, int)).decode("utf-8", "replace")
        if isinstance(message, str) and isinstance(invocation, str):
            runs.setdefault(invocation, []).extend(log_lines(message))
    return list(runs.items())


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the given secrets and without anything that looks like one."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
