"""The quick start word for word, without the role; then the shipped MoE config itself, loaded and computing."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest
from conftest import Step
from models import PROMPTS, TOKENS, prompt
from server import build_image, complete, describe_gpu, log, records, start, wait_healthy

from testlib.node import MARKERS, Node

MODEL = "DevQuasar/Qwen.Qwen3-Next-80B-A3B-Instruct-FP8-Dynamic"
ADDED = "  -e DGX_VLLM_ASSUME_CAPABILITY=12.1 \\\n"
"""The only words that are not those of the quick start: this GPU is no GB10."""
RUN = r"""docker run -d \
  --name vllm-server \
  --network host \
  --gpus all \
  --ipc=host \
  -e MODEL="DevQuasar/Qwen.Qwen3-Next-80B-A3B-Instruct-FP8-Dynamic" \
  -e PORT=8888 \
  -e TENSOR_PARALLEL_SIZE=1 \
  -e MAX_MODEL_LEN=65536 \
  -e GPU_MEMORY_UTIL=0.88 \
  -e VLLM_EXTRA_ARGS="--kv-cache-dtype fp8 --swap-space 32 --tool-call-parser hermes --reasoning-parser qwen3" \
  -v "${HOME}/.cache/huggingface:/root/.cache/huggingface" \
  dgx-vllm:latest serve
"""
CHAT = r"""curl -s http://localhost:8888/v1/chat/completions \
  -H "Content-Type: application/json" \
  -d '{
    "model": "DevQuasar/Qwen.Qwen3-Next-80B-A3B-Instruct-FP8-Dynamic",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 50
  }'
"""
MODELS = "curl http://localhost:8888/v1/models"
LINES = r"""docker logs vllm-server 2>&1 | grep "\[vLLM SM_121\]" """
CONFIG = "docker exec vllm-server ls -la /app/vllm/vllm/model_executor/layers/fused_moe/configs/ | grep GB10"
FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"


@pytest.mark.step("docker run … serve", needs=150)
def test_docker_run(node: Node, step: Step) -> None:
    build_image(node)
    # What a machine set up by NVIDIA's guide has: the runtime in daemon.json. The stand-in needs it as the default.
    node.sh(
        "nvidia-ctk runtime configure --runtime=docker --set-as-default 2>/dev/null; systemctl restart docker"
    )
    # The model comes from the hub's cache, in which random weights have its name.
    node.sh(
        f"mkdir -p ~/.cache/huggingface; test -e ~/.cache/huggingface/hub || "
        f"cp -a {os.environ['TRIAL_MODELS']}/hub ~/.cache/huggingface/"
    )
    node.sh("docker rm -f vllm-server >/dev/null 2>&1 || true")
    head, last = RUN[: RUN.index("  dgx-vllm:latest")], RUN[RUN.index("  dgx-vllm:latest") :]
    node.sh(head + ADDED + last)
    step.facts["healthy_s"] = wait_healthy(node, {"vllm-server": 8888}, 240)["vllm-server"]
    text = log(node, "vllm-server")
    step.show(text, "swap-space", "default-chat-template", "Using configuration from", "MoE config")
    assert "--swap-space" in text, "the entry point says that it left the removed flag out"


@pytest.mark.step("Its two curls", needs=20)
def test_curls(node: Node, step: Step) -> None:
    answer = json.loads(node.sh(CHAT))
    message = answer["choices"][0]["message"]
    step.lines.append(json.dumps(answer)[:300])
    assert answer["usage"]["completion_tokens"] >= 1
    assert message["content"], "the answer is in content, not in the reasoning"
    listed = json.loads(node.sh(f"{MODELS} 2>/dev/null"))
    step.lines.append(json.dumps(listed)[:200])
    assert [model["id"] for model in listed["data"]] == [MODEL]


@pytest.mark.step("docker logs | grep, and ls | grep GB10", needs=10)
def test_proofs(node: Node, step: Step) -> None:
    lines = node.sh(LINES).splitlines()
    step.lines += lines
    # vLLM 0.26 puts the process before each line: (EngineCore pid=188).
    assert sorted({line[line.find("[vLLM") :] for line in lines}) == sorted(MARKERS)
    listed = node.sh(CONFIG)
    step.lines += listed.splitlines()
    assert FILE in listed


@pytest.mark.step("The device name assumed: the shipped file is loaded and computes", needs=120)
def test_shipped_config(node: Node, step: Step) -> None:
    build_image(node)
    describe_gpu(node)
    node.sh("docker rm -f vllm-server default shipped >/dev/null 2>&1 || true")
    source = Path(__file__).parent / "assume_gb10"
    for file in sorted(path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        node.put(f"/var/tmp/assume_gb10/{file.relative_to(source)}", file.read_text(encoding="utf-8"))
    start(node, "default", 8121, "dgx-vllm:latest", "fp8-channel")
    start(node, "shipped", 8122, "dgx-vllm:latest", "fp8-channel", "-v", "/var/tmp/assume_gb10:/assume:ro",
          "-e", "PYTHONPATH=/opt/dgx-vllm:/assume")  # fmt: skip
    step.facts["healthy_s"] = wait_healthy(node, {"default": 8121, "shipped": 8122}, 200)
    step.show(log(node, "shipped"), "Using configuration from", "assume_gb10")
    asked = [row for record in records(node, "shipped") for row in record["moe_configs"]]
    step.facts["moe_configs"] = sorted({f"{row['file']}: {row['found']}" for row in asked})
    assert any(str(row["found"]).endswith(f"/{FILE}") for row in asked)
    assert f"/{FILE}" in log(node, "shipped")
    equal, apart = 0, []
    for number in range(PROMPTS):
        one, two = (complete(node, TOKENS, prompt(number), port, logprobs=5) for port in (8121, 8122))
        equal += one["text"] == two["text"]
        first, other = one["logprobs"]["top_logprobs"][0], two["logprobs"]["top_logprobs"][0]
        apart += [abs(first[token] - other[token]) for token in first if token in other]
    step.facts["equal_completions"] = f"{equal} of {PROMPTS} x {TOKENS} tokens"
    step.facts["logprob_median"] = round(statistics.median(apart), 4)
    assert statistics.median(apart) <= 0.1
    node.sh("docker rm -f default shipped")
