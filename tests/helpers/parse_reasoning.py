"""Runs in an image with a real vLLM: what its qwen3 parser makes of an Instruct model's answer."""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.reasoning import ReasoningParserManager

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "Paris": 1, ".": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
    tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_start|>", "<|im_end|>"])
    kwargs = json.loads(sys.argv[1])
    parser = ReasoningParserManager.get_reasoning_parser("qwen3")(tokenizer, chat_template_kwargs=kwargs)
    request = ChatCompletionRequest(
        model="m", messages=[{"role": "user", "content": "The capital of France?"}]
    )
    reasoning, content = parser.extract_reasoning("Paris.", request)
    print("RESULT " + json.dumps({"reasoning": reasoning, "content": content}))
