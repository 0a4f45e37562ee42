"""One vLLM server started through the image's entry point, and the requests of the trial."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toy import VOCABULARY

IMAGE = Path(__file__).resolve().parents[2] / "files" / "image"
ARGUMENTS = (
    "--load-format dummy --max-model-len 8192 --max-num-batched-tokens 4096 --no-enable-prefix-caching "
    "--kv-cache-memory-bytes 1073741824 --seed 0 --compilation-config "
    '{"cudagraph_capture_sizes":[1,2,4,8,16,32]}'
)


class TrialError(Exception):
    """One sentence: what is wrong, where, and how to fix it."""


@dataclass
class Variant:
    """One side of the comparison: the vLLM tree on its path, and its environment."""

    name: str
    python_path: list[Path]
    environment: dict[str, str] = field(default_factory=dict)
    tuned: Path | None = None


class Server:
    """A server process; its log is kept."""

    def __init__(self, variant: Variant, model: Path, port: int, work: Path) -> None:
        self.variant, self.port = variant, port
        self.log = work / f"{variant.name}.log"
        self.started_s = 0.0
        self._begin = time.monotonic()
        path = os.pathsep.join([*map(str, variant.python_path), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            "PATH": f"{_shim(work)}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": path.rstrip(os.pathsep),
            "MODEL": str(model),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "GPU_MEMORY_UTIL": "0.1",
            "MAX_NUM_SEQS": "64",
            "VLLM_EXTRA_ARGS": ARGUMENTS + " --served-model-name toy",
            "VLLM_CACHE_ROOT": str(work / "cache" / variant.name),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
            "HF_HUB_OFFLINE": "1",
            **variant.environment,
        }
        environment.pop("VLLM_TUNED_CONFIG_FOLDER", None)
        if variant.tuned:
            environment["VLLM_TUNED_CONFIG_FOLDER"] = str(variant.tuned)
        with self.log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, str(IMAGE / "entrypoint.py"), "serve"],
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, deadline: float) -> None:
        """Until /health answers 200; TrialError with the log's end when the process ends or time is up."""
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise TrialError(f"{self.variant.name} ended with {self._process.returncode}: {self.tail()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                    self.started_s = round(time.monotonic() - self._begin, 1)
                    return
            except OSError:
                time.sleep(0.5)
        raise TrialError(f"{self.variant.name} was not healthy in time: {self.tail()}")

    def tail(self) -> str:
        """The end of the log."""
        return "\n".join(self.text().splitlines()[-40:])

    def text(self) -> str:
        """The log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def complete(self, prompts: list[list[int]], tokens: int, temperature: float) -> tuple[float, list[str]]:
        """(seconds, texts) of one request with these prompts, `tokens` tokens for each."""
        body = {
            "model": "toy",
            "prompt": prompts,
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": temperature,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        start = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                data: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise TrialError(f"{self.variant.name} answered {error.code}: {error.read()[:500]!r}") from error
        seconds = time.perf_counter() - start
        if data["usage"]["completion_tokens"] != tokens * len(prompts):
            raise TrialError(
                f"{self.variant.name} gave {data['usage']} for {len(prompts)} x {tokens} tokens."
            )
        return seconds, [choice["text"] for choice in data["choices"]]

    def pause(self) -> None:
        """Take its processes off the CPU while another server is measured."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to what is left of its session."""
        with contextlib.suppress(ProcessLookupError):
            self.resume()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def prompt(length: int, seed: int) -> list[int]:
    """Random token numbers, the special ones left out."""
    generator = random.Random(seed)
    return [generator.randrange(2, VOCABULARY) for _ in range(length)]


def _shim(work: Path) -> Path:
    """A directory with a `vllm` command that runs the vLLM found on PYTHONPATH."""
    place = work / "bin"
    place.mkdir(parents=True, exist_ok=True)
    command = place / "vllm"
    command.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m vllm.entrypoints.cli.main "$@"\n', encoding="utf-8"
    )
    command.chmod(0o755)
    return place
