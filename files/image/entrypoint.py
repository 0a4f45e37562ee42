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
  RAY_START              arguments of a `ray start` that runs before vLLM, on the head of a Ray cluster

Everything else of vLLM is an argument, after `serve` or in VLLM_EXTRA_ARGS; an argument wins over its variable.
Secrets belong in the environment (VLLM_API_KEY, HF_TOKEN), not in arguments.
Standard library only; Python 3.10 and newer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path

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

_SHELL_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*")+""", re.DOTALL)
_JSON_START = re.compile(r"(?:--[A-Za-z0-9][\w.-]*=)?(?=[{\[])")
_SECRET = re.compile(r"--(?:.*-)?(?:api-key|token|password|secret)$")


class Refused(Exception):
    """One sentence: what is wrong, where, and how to fix it."""


def _say(text: str) -> None:
    print(f"[dgx-vllm] {text}", file=sys.stderr, flush=True)


def split_words(text: str) -> list[str]:
    """Split like a shell, except that a word that starts with unquoted JSON stays unchanged."""
    words: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return words
        start = _JSON_START.match(text, at)
        if start:
            try:
                _, end = json.JSONDecoder().raw_decode(text, start.end())
            except ValueError:
                end = 0
            if end and (end == len(text) or text[end].isspace()):
                words.append(text[at:end])
                at = end
                continue
        word = _SHELL_WORD.match(text, at)
        if word is None or (word.end() < len(text) and not text[word.end()].isspace()):
            raise Refused(
                "VLLM_EXTRA_ARGS has a quote that is not closed, or ends in a backslash: quote it as in a shell."
            )
        words.append("".join(shlex.split(word.group())))
        at = word.end()


def flag_of(argument: str) -> str:
    """`--swap_space=16` -> `--swap-space`; a word that is not a flag -> ''."""
    return argument.split("=", 1)[0].replace("_", "-") if argument.startswith("--") else ""


def value_of(flag: str, arguments: list[str]) -> str:
    """The last value that `arguments` give to `flag`; '' without one."""
    value = ""
    for index, word in enumerate(arguments):
        if flag_of(word) == flag:
            value = word.partition("=")[2] if "=" in word else "".join(arguments[index + 1 : index + 2])
    return value


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


def drop_removed(arguments: list[str], version: tuple[int, int] | None) -> list[str]:
    """Remove the flags that the installed vLLM no longer has, with one warning per flag."""
    kept: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        gone = REMOVED_FLAGS.get(flag_of(word))
        if gone is None or version is None or version < gone[0]:
            kept.append(word)
            continue
        since, has_value = gone
        if has_value and "=" not in word and rest and not rest[0].startswith("--"):
            word += " " + rest.pop(0)
        _say(f"warning: dropped {word}: vLLM has no such flag since {since[0]}.{since[1]}.0")
    return kept


def _whole(low: int, high: int) -> Callable[[str], bool]:
    return lambda text: text.isascii() and text.isdigit() and low <= int(text) <= high


def _fraction(text: str) -> bool:
    return bool(re.fullmatch(r"0?\.\d+|1(\.0*)?", text)) and float(text) > 0


NO_THINKING = '{"enable_thinking": false}'

#: variable -> (flag, default, test, description of a valid value)
VARIABLES: dict[str, tuple[str, str, Callable[[str], bool], str]] = {
    "HOST": ("--host", "0.0.0.0", lambda t: bool(re.fullmatch(r"[\w.:%-]+", t)), "an address or host name"),
    "PORT": ("--port", "8000", _whole(1, 65535), "a port from 1 to 65535"),
    "TENSOR_PARALLEL_SIZE": ("--tensor-parallel-size", "1", _whole(1, 1024), "a whole number from 1"),
    "MAX_MODEL_LEN": (
        "--max-model-len",
        "",
        lambda t: bool(re.fullmatch(r"[1-9]\d*[kKmM]?|auto|-1", t)),
        "a number of tokens such as 32768 or 32k, or auto",
    ),
    "GPU_MEMORY_UTIL": (
        "--gpu-memory-utilization",
        "0.8",
        _fraction,
        "a fraction above 0 and up to 1, such as 0.8",
    ),
    "MAX_NUM_SEQS": ("--max-num-seqs", "", _whole(1, 1_000_000), "a whole number from 1"),
    "SHUTDOWN_TIMEOUT": ("--shutdown-timeout", "", _whole(0, 86400), "a number of seconds"),
}

#: Variable -> first vLLM release with its flag; before, and for an unknown release, it is ignored.
SINCE = {"SHUTDOWN_TIMEOUT": (0, 18)}


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
    given = drop_removed([*extra, *arguments], version)
    flags = {flag_of(word) for word in given}
    if not model and "--model" not in flags and not flags & {"--help", "-h"} and "-h" not in given:
        raise Refused(
            "MODEL is not set: set it with -e MODEL=<Hugging Face id or directory in the container>."
        )
    command = ["vllm", "serve", *([model] if model else [])]
    for name, (flag, default, is_valid, expected) in VARIABLES.items():
        value = env.get(name, "").strip()
        if value and not is_valid(value):
            raise Refused(f"{name}={value!r} is not {expected}.")
        if flag in flags or (name == "GPU_MEMORY_UTIL" and not value and "--kv-cache-memory-bytes" in flags):
            continue
        if name in SINCE and (version is None or version < SINCE[name]):
            continue
        if value or default:
            command += [flag, value or default]
    command += given
    if "--tool-call-parser" in flags and not flags & {
        "--enable-auto-tool-choice",
        "--no-enable-auto-tool-choice",
    }:
        _say("notice: added --enable-auto-tool-choice, without which vLLM refuses --tool-call-parser")
        command.append("--enable-auto-tool-choice")
    if (
        value_of("--reasoning-parser", given) == "qwen3"
        and answers_without_thinking(model or value_of("--model", given))
        and "--default-chat-template-kwargs" not in flags
    ):
        _say(
            f"notice: added --default-chat-template-kwargs {NO_THINKING}, without which the parser qwen3 takes the "
            "whole answer of an Instruct model for reasoning (vllm#53284)"
        )
        command += ["--default-chat-template-kwargs", NO_THINKING]
    return command


def masked(command: list[str]) -> list[str]:
    """The command with the values of secret flags hidden; --api-key may take several."""
    shown: list[str] = []
    secret = False
    for word in command:
        if word.startswith("--"):
            secret = bool(_SECRET.match(flag_of(word)))
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
        if not re.fullmatch(r"\d+\.\d+", assumed):
            raise Refused(f"DGX_VLLM_ASSUME_CAPABILITY={assumed!r} is not a capability: write it as 12.1.")
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


def main(argv: list[str]) -> int:
    """Replace this process with the command; returns only if it was refused."""
    command = argv or ["serve"]
    try:
        if command[0] == "serve":
            command = serve_command(command[1:], os.environ, installed_version())
            ray = os.environ.get("RAY_START", "")
            prepare_environment(os.environ)
            start_ray(ray)
            if any(flag_of(word) == "--api-key" for word in command):
                _say(
                    "warning: --api-key is visible in the process list; set VLLM_API_KEY in the environment instead"
                )
            _say("exec: " + shlex.join(masked(command)))
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
