"""Runs in an image with a real vLLM: load a tiny model with dummy weights, make three tokens, print the records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

DENSE = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 512,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "hidden_act": "silu",
}  # fmt: skip
MOE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 64, "decoder_sparse_step": 1, "norm_topk_prob": True, "mlp_only_layers": [],
}  # fmt: skip
FP8 = {
    "quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": {"type": "float", "num_bits": 8, "strategy": "channel", "symmetric": True},
        "input_activations": {"type": "float", "num_bits": 8, "strategy": "token", "dynamic": True},
    }},
}  # fmt: skip
#: What config.json says, and what a CPU makes of it, as the simulated image does.
KINDS = {
    "dense": ({}, {}),
    "moe": (MOE, {}),
    "gb10": (
        {**MOE, "num_experts": 512, "moe_intermediate_size": 512, "quantization_config": FP8},
        {"quantization_config": None, "num_experts": 8, "moe_intermediate_size": 64},
    ),
}  # fmt: skip

if __name__ == "__main__":
    place = Path("/tmp/model")
    place.mkdir()
    more, overrides = KINDS[sys.argv[1]]
    (place / "config.json").write_text(json.dumps({**DENSE, **more}), encoding="utf-8")

    from vllm import LLM, SamplingParams

    engine = LLM(
        str(place), load_format="dummy", skip_tokenizer_init=True, max_model_len=128, enforce_eager=True,
        dtype="bfloat16", max_num_seqs=2, hf_overrides=overrides,
    )  # fmt: skip
    (answer,) = engine.generate(
        [{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=3, detokenize=False)
    )
    records = [json.loads(file.read_text()) for file in sorted(Path("/tmp/dgx-vllm").glob("record-*.json"))]
    print("RESULT " + json.dumps({"tokens": list(answer.outputs[0].token_ids), "records": records}))
