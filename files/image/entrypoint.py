#!/usr/bin/env python3
"""Entry point of the image: `serve [vllm arguments…]`, or any other command unchanged.

`serve` turns these variables into one `vllm serve` command and replaces itself with it, so that the
container has one process and signals reach vLLM:

  MODEL                  required (or the first word after `serve`): HF id or directory
  PORT                   8000
  HOST                   0.0.0.0, so that `docker run -p 8000:8000` works; 127.0.0.1 with --network host
  TENSOR_PARALLEL_SIZE   1
  MAX_MODEL_LEN          vLLM's default; a number, 32k, or auto
  GPU_MEMORY_UTIL        0.8: vLLM's own default is above 0.9, which can freeze a GB10's host
  MAX_NUM_SEQS           vLLM's default
  SHUTDOWN_TIMEOUT       vLLM's default, which aborts requests at SIGTERM; seconds to finish them, from vLLM 0.18 on
  VLLM_EXTRA_ARGS        additional arguments, quoted as in a shell; JSON needs no quotes
  QUIET_ENDPOINTS        paths whose requests are not logged, such as /health,/metrics; from vLLM 0.16 on
  RAY_START              arguments of a `ray start` that runs before vLLM, on the head of a Ray cluster

Everything else of vLLM is an argument, after `serve` or in VLLM_EXTRA_ARGS, in any of the forms that vLLM takes; an
argument wins over its variable, a variable over the file of --config.
Secrets belong in the environment (VLLM_API_KEY, HF_TOKEN), not in arguments.
Standard library only; Python 3.10 and newer.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

import serve_arguments
import setting_kinds

OWN_VARIABLES = (
    "MODEL",
    "PORT",
    "HOST",
    "TENSOR_PARALLEL_SIZE",
    "MAX_MODEL_LEN",
    "GPU_MEMORY_UTIL",
    "MAX_NUM_SEQS",
    "SHUTDOWN_TIMEOUT",
    "VLLM_EXTRA_ARGS",
    "QUIET_ENDPOINTS",
    "RAY_START",
)

#: Flag -> (first vLLM release without it, whether it takes a value); read from the released sources.
REMOVED_FLAGS: dict[str, tuple[tuple[int, int], bool]] = {
    "--disable-log-requests": ((0, 17), False),
    "--logits-processor-pattern": ((0, 17), True),
    "--swap-space": ((0, 18), True),
    "--use-gpu-for-pooling-score": ((0, 18), False),
    "--disable-frontend-multiprocessing": ((0, 19), False),
    "--max-num-partial-prefills": ((0, 27), True),
    "--max-long-partial-prefills": ((0, 27), True),
    "--calculate-kv-scales": ((0, 28), False),
    "--override-attention-dtype": ((0, 28), True),
    "--enable-bf16x3-router-gemm": ((0, 30), False),
    "--enable-mamba-fine-grained-prefix-cache": ((0, 31), False),
}

SWITCHES = {"DGX_VLLM_FP8_LINEAR": "torch", "DGX_VLLM_FP8_MOE": "triton"}
INSTALLED = Path("/app/vllm/vllm")
MODELS = Path("/models")
#: Entry points of NVIDIA's images. They prepare the container, by CUDA's forward compatibility among other things, and
#: run their arguments; ours has taken their place.
BASE_ENTRY_POINTS = ("/opt/nvidia/nvidia_entrypoint.sh", "/usr/local/bin/nvidia_entrypoint.sh")
THROUGH_BASE = "DGX_VLLM_THROUGH_BASE"
TABLE = Path(__file__).resolve().with_name("serve_options.txt")

_SECRET = re.compile(r"--(?:.*-)?(?:api-key|token|password|secret)$")


class Refused(Exception):
    """One sentence: what is wrong, where, and how to fix it."""


def _say(text: str) -> None:
    print(f"[dgx-vllm] {text}", file=sys.stderr, flush=True)


def split_words(text: str) -> list[str]:
    """The words of VLLM_EXTRA_ARGS."""
    try:
        return serve_arguments.split_words(text)
    except ValueError:
        raise Refused(
            "VLLM_EXTRA_ARGS has a quote that is not closed, or ends in a backslash: quote it as in a shell."
        ) from None


def grammar(table: Path = TABLE) -> serve_arguments.Grammar:
    """The options of the vLLM in this image, from the table that the build made; without one, by their looks."""
    try:
        return serve_arguments.Grammar(table.read_text(encoding="utf-8"))
    except OSError:
        return serve_arguments.Grammar("")


def flag_of(argument: str) -> str:
    """`--swap_space=16` -> `--swap-space`; a word that is not a flag -> ''."""
    return argument.split("=", 1)[0].replace("_", "-") if argument.startswith("--") else ""


def from_file(options: Sequence[serve_arguments.Option]) -> dict[str, str]:
    """Option -> value in the file of --config, which vLLM puts before all other arguments; {} if it cannot be read."""
    path = serve_arguments.value(options, "--config")
    try:
        import yaml

        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else {}
    except Exception:  # whatever is wrong with the file, vLLM says it
        return {}
    pairs = content.items() if isinstance(content, dict) else ()
    return {"--" + str(name).replace("_", "-"): str(value) for name, value in pairs if value is not False}


def answers_without_thinking(model: str) -> bool:
    """Whether the name is that of an Instruct model, whose answers have no <think> block."""
    name = model.rstrip("/").rpartition("/")[2].lower()
    return "instruct" in name and "thinking" not in name


def installed_version() -> tuple[int, int] | None:
    """(major, minor) of the vLLM that `vllm serve` will run, without importing it."""
    spec = importlib.util.find_spec("vllm")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    for place in (*places, INSTALLED):
        try:
            text = (place / "_version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        match = re.search(r"^__version__\b.*=\s*['\"](\d+)\.(\d+)", text, re.MULTILINE)
        if match:
            return int(match.group(1)), int(match.group(2))
    return None


def drop_removed(
    arguments: list[str], version: tuple[int, int] | None, known: serve_arguments.Grammar | None = None
) -> list[str]:
    """Remove the flags that the installed vLLM no longer has, with one warning per flag; some came back."""
    kept: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        gone = REMOVED_FLAGS.get(flag_of(word))
        back = known is not None and known.knows(flag_of(word))
        if gone is None or back or version is None or version < gone[0]:
            kept.append(word)
            continue
        since, has_value = gone
        if has_value and "=" not in word and rest and not rest[0].startswith("--"):
            word += " " + rest.pop(0)
        _say(f"warning: dropped {word}: vLLM has no such flag since {since[0]}.{since[1]}.0")
    return kept


QUIET = "--disable-access-log-for-endpoints"
NO_THINKING = '{"enable_thinking": false}'

#: variable -> (flag, default, what it may hold)
VARIABLES: dict[str, tuple[str, str, setting_kinds.Kind]] = {
    "HOST": ("--host", "0.0.0.0", setting_kinds.HOST),
    "PORT": ("--port", "8000", setting_kinds.PORT),
    "TENSOR_PARALLEL_SIZE": ("--tensor-parallel-size", "1", setting_kinds.PARTS),
    "MAX_MODEL_LEN": ("--max-model-len", "", setting_kinds.TOKENS),
    "GPU_MEMORY_UTIL": ("--gpu-memory-utilization", "0.8", setting_kinds.SHARE),
    "MAX_NUM_SEQS": ("--max-num-seqs", "", setting_kinds.SEQUENCES),
    "SHUTDOWN_TIMEOUT": ("--shutdown-timeout", "", setting_kinds.GRACE),
}

#: Ignored where this vLLM does not have the option.
OPTIONAL = ("SHUTDOWN_TIMEOUT",)


def _refuse(name: str, kind: setting_kinds.Kind, value: str) -> None:
    problem = setting_kinds.read_wrong(name, kind, value) if value else ""
    if problem:
        raise Refused(problem)


def serve_command(
    arguments: list[str], env: MutableMapping[str, str], version: tuple[int, int] | None
) -> list[str]:
    """The `vllm serve …` command for these arguments and variables; Refused with one sentence if they are wrong."""
    model = env.get("MODEL", "").strip()
    extra = split_words(env.get("VLLM_EXTRA_ARGS", ""))
    if arguments and not arguments[0].startswith("-"):
        named = arguments.pop(0)
        if model and model != named:
            raise Refused(f"MODEL is {model} but the command names {named}: give the model once.")
        model = named
    known = grammar()
    given = drop_removed([*extra, *arguments], version, known)
    options = known.read(given)
    file = from_file(options)
    flags = {option.name for option in options}
    model = model or serve_arguments.value(options, "--model") or ""
    if not model and "--model" not in file and not flags & {"--help", "-h"}:
        raise Refused(
            "MODEL is not set: set it with -e MODEL=<Hugging Face id or directory in the container>."
        )
    _refuse("MODEL", setting_kinds.MODEL, model)
    command = ["vllm", "serve", *([model] if model and "--model" not in flags else [])]
    for name, (flag, default, kind) in VARIABLES.items():
        value = env.get(name, "").strip()
        _refuse(name, kind, value)
        if flag in flags or (name in OPTIONAL and not known.knows(flag)):
            continue
        if value or (default and flag not in file):
            command += [flag, value or default]
    quiet = env.get("QUIET_ENDPOINTS", "").strip()
    if quiet and known.knows(QUIET) and QUIET not in {*flags, *file}:
        command += [QUIET, quiet]
    return [*command, *given, *_companions(model or file.get("--model", ""), options, file)]


def _companions(model: str, options: Sequence[serve_arguments.Option], file: Mapping[str, str]) -> list[str]:
    """What the given options need beside them."""
    flags = {*file, *(option.name for option in options)}
    added: list[str] = []
    if "--tool-call-parser" in flags and "--enable-auto-tool-choice" not in flags:
        _say("notice: added --enable-auto-tool-choice, without which vLLM refuses --tool-call-parser")
        added.append("--enable-auto-tool-choice")
    parser = serve_arguments.value(options, "--reasoning-parser") or file.get("--reasoning-parser")
    if (
        parser == "qwen3"
        and answers_without_thinking(model)
        and "--default-chat-template-kwargs" not in flags
    ):
        _say(
            f"notice: added --default-chat-template-kwargs {NO_THINKING}, without which the parser qwen3 takes the "
            "whole answer of an Instruct model for reasoning (vllm#53284)"
        )
        added += ["--default-chat-template-kwargs", NO_THINKING]
    return added


def masked(command: list[str]) -> list[str]:
    """The command with the values of secret flags hidden; --api-key may take several."""
    known = grammar()
    shown: list[str] = []
    secret = False
    for word in command:
        if word.startswith("-") and not re.match(r"-\d", word):
            secret = bool(_SECRET.match(known.read([word])[0].name))
            shown.append(word.split("=", 1)[0] + "=***" if secret and "=" in word else word)
        else:
            shown.append("***" if secret else word)
    return shown


def prepare_environment(env: MutableMapping[str, str]) -> None:
    """Remove our own variables (vLLM warns about unknown VLLM_* ones), check the switches, separate the caches.

    vLLM keys its compiled graphs by its own variables only, so runs with other routes get their own
    cache directory: otherwise an A/B test of the switches would load the other side's graph.
    """
    for name in (*OWN_VARIABLES, "VLLM_PORT"):
        if env.pop(name, None) is not None and name == "VLLM_PORT":
            _say("warning: ignored VLLM_PORT, which moves vLLM's internal ports; the server's port is PORT")
    routes = []
    for name, route in SWITCHES.items():
        value = env.get(name, "").strip().lower() or route
        if value not in (route, "auto"):
            raise Refused(f"{name}={value!r} is not a route: set it to '{route}' or 'auto'.")
        routes.append(value)
    assumed = env.get("DGX_VLLM_ASSUME_CAPABILITY", "").strip()
    if assumed:
        _refuse("DGX_VLLM_ASSUME_CAPABILITY", setting_kinds.CAPABILITY, assumed)
        routes.append(f"assumed-{assumed}")
    if routes != list(SWITCHES.values()):
        root = env.get("VLLM_CACHE_ROOT") or str(Path(env.get("HOME", "/root")) / ".cache" / "vllm")
        env["VLLM_CACHE_ROOT"] = str(Path(root) / ("routes-" + "-".join(routes)))
    if "HF_HOME" not in env and MODELS.is_dir():
        env["HF_HOME"] = str(MODELS)


def start_ray(arguments: str) -> None:
    """Start Ray's processes in the background of this container; Refused if they do not start."""
    if not arguments:
        return
    command = ["ray", "start", *split_words(arguments)]
    _say(shlex.join(command))
    try:
        status = subprocess.run(command, check=False).returncode
    except FileNotFoundError as error:
        raise Refused(
            "RAY_START is set, but this image has no Ray: build it with Ray, or use vLLM's own executor (mp)."
        ) from error
    if status:
        raise Refused(f"`ray start` exited with {status}: see its output above.")


def start_through_base(argv: list[str]) -> None:
    """Begin again behind the entry point of the image below, if it has one that runs its arguments."""
    base = next((path for path in BASE_ENTRY_POINTS if os.access(path, os.X_OK)), "")
    if base and not os.environ.pop(THROUGH_BASE, ""):
        os.environ[THROUGH_BASE] = "1"
        sys.stdout.flush()
        os.execv(base, [base, sys.executable, str(Path(__file__).resolve()), *argv])


def main(argv: list[str]) -> int:
    """Replace this process with the command; returns only if it was refused."""
    start_through_base(argv)
    command = argv or ["serve"]
    try:
        if command[0] == "serve":
            command = serve_command(command[1:], os.environ, installed_version())
            ray = os.environ.get("RAY_START", "")
            prepare_environment(os.environ)
            start_ray(ray)
            shown = masked(command)
            if shown != command:
                _say(
                    "warning: a secret among the arguments is visible in the process list; set VLLM_API_KEY or "
                    "HF_TOKEN in the environment instead"
                )
            _say("exec: " + shlex.join(shown))
        elif command[0].startswith("-"):
            raise Refused(f"The command starts with {command[0]}: put `serve` before vLLM's arguments.")
    except Refused as error:
        _say(str(error))
        return 2
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        _say(f"There is no command {command[0]} in this image: use serve, hf, python3, nvidia-smi or bash.")
        return 127
    except OSError as error:
        _say(f"{command[0]} cannot be run ({error.strerror}): check the file and its mode.")
        return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
