"""Requests to the servers of the trial, and what a server's log and records must show."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testlib.node import MARKERS, UNIT, Node, wait_until
from testlib.runs import PROJECT, Operator

PROMPT = "t5 t6 t7 t8 t9 t10 t11 t12"
HEALTH = str(Path(__file__).parent / "health.yml")
ROUTES = {"linear": MARKERS[0], "moe": MARKERS[1]}


def ask(node: Node, path: str, body: dict[str, Any] | None = None, port: int = 8000, limit: int = 60) -> Any:
    """The JSON of one request, made on the node; None if there is no answer with status 200."""
    words = ["curl", "-sf", "-m", str(limit), f"http://127.0.0.1:{port}{path}"]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = node.host.run(shlex.join(words))
    return json.loads(done.stdout) if done.rc == 0 and done.stdout.strip() else None


def complete(
    node: Node, tokens: int = 32, prompt: str = PROMPT, port: int = 8000, logprobs: int = 0
) -> dict[str, Any]:
    """The first choice of a greedy completion of exactly `tokens` tokens."""
    body = {
        "model": "toy",
        "prompt": prompt,
        "max_tokens": tokens,
        "min_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    answer = ask(node, "/v1/completions", {**body, **({"logprobs": logprobs} if logprobs else {})}, port)
    assert answer, f"port {port} completes nothing"
    assert answer["usage"]["completion_tokens"] == tokens
    choice: dict[str, Any] = answer["choices"][0]
    return choice


def healthy(node: Node, port: int = 8000) -> bool:
    """Whether /health answers 200."""
    return bool(node.host.run(f"curl -sf -m 3 -o /dev/null http://127.0.0.1:{port}/health").rc == 0)


def back_in_service(node: Node, act: Callable[[], Any], limit: float = 300) -> float:
    """Seconds from an act that ends the server to its next served token."""
    before, start = node.property("InvocationID"), time.monotonic()
    act()

    def serves() -> bool:
        restarted = node.property("InvocationID") not in ("", before)
        return restarted and node.property("ActiveState") == "active" and healthy(node)

    wait_until(serves, f"{UNIT} is back", limit)
    complete(node, 4)
    return round(time.monotonic() - start, 1)


def verified(operator: Operator, **variables: Any) -> dict[str, Any]:
    """The result of the role's own health check."""
    file = operator.folder / "health"
    operator.succeed(HEALTH, given={"trial_health_file": str(file)}, **variables)
    result: dict[str, Any] = json.loads(Path(f"{file}.spark1.json").read_text(encoding="utf-8"))
    return result


def judged(result: dict[str, Any]) -> dict[str, str]:
    """Check -> status."""
    return {row["check"]: row["status"] for row in result["checks"]}


def failed(result: dict[str, Any]) -> list[str]:
    """The failed checks in words."""
    return [f"{row['check']}: {row['found']}" for row in result["checks"] if row["status"] == "fail"]


def records(node: Node, container: str = "dgx-vllm") -> list[dict[str, Any]]:
    """What the patch wrote down in each process of a container that loaded a model."""
    script = (
        "import glob, json, os; folder = os.environ.get('DGX_VLLM_RECORD_DIR') or '/tmp/dgx-vllm'; "
        "print(json.dumps([json.load(open(name)) for name in sorted(glob.glob(folder + '/record-*.json'))]))"
    )
    text = node.sh(f"docker exec {container} python3 -c {shlex.quote(script)}")
    found: list[dict[str, Any]] = json.loads(text.splitlines()[-1])
    return [record for record in found if record.get("census") is not None]


def told(record: dict[str, Any]) -> dict[str, list[str]]:
    """A record in words: what was decided, what the layers hold, which MoE configs were asked for."""
    return {
        "decisions": [f"{row['layer']}: {row['why']} {row['chosen']}".strip() for row in record["decisions"]],
        "census": sorted(
            {f"{row['layer']}: {', '.join(row['holds']) or row['method']}" for row in record["census"]}
        ),
        "moe_configs": [f"{row['file']}: {row['found'] or 'not there'}" for row in record["moe_configs"]],
    }


def routed(record: dict[str, Any]) -> tuple[str, ...]:
    """The kinds of layers for which a route was taken."""
    return tuple(sorted({row["layer"] for row in record["decisions"] if row["why"] == "routed"}))


def markers(log: str) -> list[str]:
    """The routes whose line is in a log."""
    return [route for route, text in ROUTES.items() if text in log]


def start(node: Node, name: str, port: int, image: str, model: str, *options: str) -> None:
    """Start a server without the role, beside others on one GPU; an image of ours chooses as on capability 12.1.

    `options` are additional ones of `docker run`.
    """
    arguments = (
        "--served-model-name toy --max-model-len 4096 --max-num-seqs 16 --kv-cache-memory-bytes 536870912 --seed 0 "
        '--no-enable-prefix-caching --compilation-config {"cudagraph_capture_sizes":[1,2,4]}'
    )
    words = [
        "docker",
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "host",
        "--device",
        "nvidia.com/gpu=all",
        "--ipc=host",
    ]
    words += ["-v", f"{os.environ['TRIAL_MODELS']}:/models:ro", *options]
    if image == os.environ["TRIAL_BASE"]:
        words += [image, "vllm", "serve", f"/models/{model}", "--host", "127.0.0.1", "--port", str(port)]
        words += ["--gpu-memory-utilization", "0.1", *arguments.split(" ")]
    else:
        variables = {"MODEL": f"/models/{model}", "HOST": "127.0.0.1", "PORT": str(port), "GPU_MEMORY_UTIL": "0.1",
                     "VLLM_EXTRA_ARGS": arguments, "DGX_VLLM_ASSUME_CAPABILITY": "12.1"}  # fmt: skip
        words += [word for pair in variables.items() for word in ("-e", "=".join(pair))] + [image, "serve"]
    node.sh(f"docker rm -f {name} >/dev/null 2>&1 || true; {shlex.join(words)}")


def wait_healthy(node: Node, ports: dict[str, int], limit: float) -> dict[str, float]:
    """Seconds until each container is healthy; a container that ended fails at once, with the end of its log."""
    begun, took = time.monotonic(), {}
    while len(took) < len(ports):
        for name, port in ports.items():
            if name in took:
                continue
            if healthy(node, port):
                took[name] = round(time.monotonic() - begun, 1)
            running = node.host.run(f"docker inspect -f '{{{{.State.Running}}}}' {name}").stdout.strip()
            assert running == "true", f"{name} ended: {log(node, name)[-1500:]}"
        assert time.monotonic() - begun < limit, f"not healthy in {limit} s: {sorted(set(ports) - set(took))}"
        time.sleep(1)
    return took


def log(node: Node, name: str) -> str:
    """The log of a container."""
    return node.sh(f"docker logs {name} 2>&1")


def build_image(node: Node) -> None:
    """The image as `docker build` makes it from this checkout, without the role."""
    if node.host.run("docker image inspect dgx-vllm:latest").rc == 0:
        return
    source = shlex.quote(str(PROJECT / "files" / "image"))
    address = f"root@{os.environ['TRIAL_NET']}.11"
    node.sh("rm -rf /var/tmp/image")
    subprocess.run(
        f"scp -q -r -o StrictHostKeyChecking=accept-new {source} {address}:/var/tmp/image",
        shell=True,
        check=True,
    )
    node.sh(
        f"docker build -q --build-arg BASE_IMAGE={os.environ['TRIAL_BASE']} -t dgx-vllm:latest /var/tmp/image"
    )


def describe_gpu(node: Node) -> None:
    """A CDI specification, as the toolkit writes it at boot."""
    node.sh("mkdir -p /run/cdi && nvidia-ctk cdi generate --output=/run/cdi/nvidia.yaml 2>/dev/null")
