"""What dgx_vllm_extra_args says, read as vLLM reads it, and what must not be there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve.arguments import Grammar, Option
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve.options import OPTIONS

GRAMMAR = Grammar(OPTIONS)
"""That of the locked vLLM; an image with another one may have options that it lacks: those are left alone."""

# Options of `vllm serve` that a variable sets; in dgx_vllm_extra_args they could contradict it.
OWN_FLAGS = {
    "--model": "model",
    "--host": "host",
    "--port": "port",
    "--api-key": "api_key",
    "--hf-token": "hf_token",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--distributed-executor-backend": "executor",
    "--nnodes": "replica",
    "--node-rank": "rank",
    "--master-port": "master_port",
    "--headless": "rank",
    "--max-model-len": "max_model_len",
    "--max-num-seqs": "max_num_seqs",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--kv-cache-memory-bytes": "kv_cache_memory_bytes",
    "--kv-cache-dtype": "kv_cache_dtype",
    "--revision": "model_revision",
    "--served-model-name": "served_model_names",
    "--tool-call-parser": "tool_call_parser",
    "--reasoning-parser": "reasoning_parser",
}
_NO_PORT = "remove it, because clients, the checks and the watch reach the server at dgx_vllm_port over HTTP"
_NO_TLS = "remove it, because the checks and the watch ask the server without TLS; put a proxy with TLS in front of it"
_ONE_GPU = (
    "remove it, because a replica has one GPU per node, all of them in use by dgx_vllm_tensor_parallel_size and "
    "dgx_vllm_pipeline_parallel_size; for more requests serve another replica"
)
REFUSED = {
    "--master-addr": "remove it, because the head's address comes from the plan of the inventory, which "
    "playbooks/topology.yml prints",
    "--uds": _NO_PORT,
    "--grpc": _NO_PORT,
    "--ssl-certfile": _NO_TLS,
    "--ssl-keyfile": _NO_TLS,
    "--data-parallel-size": _ONE_GPU,
}


def mistakes(words: Sequence[str]) -> Iterator[str]:
    """One sentence per option that must not be in dgx_vllm_extra_args; none shows a value."""
    words = [str(word) for word in words]
    for word in words:
        together = re.match(r"(--?[A-Za-z][\w.-]*)\s", word)
        if together:
            yield (
                f"dgx_vllm_extra_args has {together[1]} and its value in one item; write them as two items, because "
                "vLLM takes an item with a space for a value."
            )
    for option in GRAMMAR.read(words):
        if option.name in OWN_FLAGS:
            yield f"dgx_vllm_extra_args has {option.written}; set dgx_vllm_{OWN_FLAGS[option.name]} instead."
        elif option.name in REFUSED and not _is_default(option):
            yield f"dgx_vllm_extra_args has {option.written}; {REFUSED[option.name]}."


def _is_default(option: Option) -> bool:
    return not option.on or (option.name == "--data-parallel-size" and option.values == ("1",))
