"""Which files a server needs from the model hub: those of its model, and the repositories that its arguments name.

The server runs offline, so a draft model, another tokenizer or a LoRA adapter must be on the node before it starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import WEIGHTS
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import arguments
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.extra_arguments import GRAMMAR

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
NO_WEIGHTS = {"exclude": [f"*{suffix}" for suffix in WEIGHTS]}


def server_models(
    words: Sequence[str], model: str, include: Sequence[str], exclude: Sequence[str]
) -> dict[str, Any]:
    """`files` of the model, and `others`: model, revision and files of what else `words` (dgx_vllm_extra_args) name."""
    options = GRAMMAR.read([str(word) for word in words])
    files = {
        "include": [*include],
        "exclude": [*exclude],
        "load_format": arguments.value(options, "--load-format") or "auto",
    }
    others: dict[str, dict[str, Any]] = {}
    for name, revision, which in _named(options):
        if HUB_ID.fullmatch(name) and name != model and name not in others:
            others[name] = {"model": name, "revision": revision or "main", "files": which}
    return {"files": files, "others": [*others.values()]}


def _named(options: Sequence[arguments.Option]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Repository, revision and files of each option that names one."""
    draft = arguments.document(options, "--speculative-config") or {}
    yield str(draft.get("model") or ""), str(draft.get("revision") or ""), {}
    yield arguments.value(options, "--spec-model") or "", "", {}
    revision = arguments.value(options, "--tokenizer-revision") or ""
    yield arguments.value(options, "--tokenizer") or "", revision, NO_WEIGHTS
    yield arguments.value(options, "--hf-config-path") or "", "", NO_WEIGHTS
    adapters = arguments.last(options, "--lora-modules")
    for text in adapters.values if adapters else ():
        yield _adapter(text), "", {}


def _adapter(text: str) -> str:
    """The repository of `name=repository` or of a JSON object with a path."""
    if "=" in text and "{" not in text:
        return text.partition("=")[2]
    try:
        return str(json.loads(text).get("path") or "")
    except (ValueError, AttributeError):
        return ""
