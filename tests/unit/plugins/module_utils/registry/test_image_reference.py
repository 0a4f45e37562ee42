"""References as Docker reads them."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", ("alpine", "docker.io", "library/alpine", "latest", "")),
        ("vllm/vllm-openai:v0.33.0", ("vllm/vllm-openai", "docker.io", "vllm/vllm-openai", "v0.33.0", "")),
        ("docker.io/a:1", ("docker.io/a", "docker.io", "library/a", "1", "")),
        ("localhost/a", ("localhost/a", "localhost", "a", "latest", "")),
        ("r.example:5000/t/a", ("r.example:5000/t/a", "r.example:5000", "t/a", "latest", "")),
        ("[::1]:5000/a:x", ("[::1]:5000/a", "[::1]:5000", "a", "x", "")),
        (f"r.example/a@{DIGEST}", ("r.example/a", "r.example", "a", "", DIGEST)),
        (f"r.example/a:1@{DIGEST}", ("r.example/a", "r.example", "a", "1", DIGEST)),
    ],
)
def test_parts(text, expected):
    found = parse(text)
    assert tuple(found) == expected
    assert found.manifest == (found.digest or found.tag)


@pytest.mark.parametrize(
    "text", ["", "A/b:1", "a:b:c", "a@sha256:12", "a@md5:" + "a" * 32, "a b", "a:", "-x", "a/"]
)
def test_what_is_not_a_reference(text):
    if text == "a:":  # Docker refuses an empty tag, too
        with pytest.raises(ValueError, match="valid tag"):
            parse(text)
        return
    with pytest.raises(ValueError, match="; write "):
        parse(text)
