"""A model's files, a hub's listing, a cache and an image's name, damaged or hostile."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model import folder, hub, selection, weights
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.cache import Cache
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.names import is_commit, is_file_name
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry import client, reference
from hypothesis import strategies as st
from moe_config import ConfigError, doctor, quant
from moe_config.model import load
from replica_watch.system import read_metrics

from helpers.fuzz import ODD_TEXTS, damaged, damaged_text, fuzz

CONFIG = {
    "hidden_size": 2048, "num_experts": 8, "moe_intermediate_size": 512, "num_hidden_layers": 2,
    "quantization_config": {
        "quant_method": "compressed-tensors", "ignore": ["re:.*o_proj", "lm_head", "*gate*"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear", "re:.*experts.*"],
                "weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]},
                "input_activations": {"num_bits": 8},
            }
        },
    },
    "text_config": {"hidden_size": 1, "num_experts": [8, 8]},
}  # fmt: skip
INDEX = {"weight_map": {"model.layers.0.mlp.experts.0.up.weight_scale": "a.safetensors"}}


@fuzz("moe_config: config.json and index", damaged(CONFIG), damaged(INDEX), st.booleans())
def test_a_models_configuration_is_a_kind_or_a_sentence(config: Any, index: Any, has_index: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place, "config.json").write_text(json.dumps(config))
        if has_index:
            Path(place, "model.safetensors.index.json").write_text(json.dumps(index))
        try:
            found = quant.detect(load(place))
        except ConfigError as error:
            assert str(error).strip()
        else:
            assert found.kind in ("none", "fp8-channel", "fp8-tensor", "fp8-block", "nvfp4", "other")


@fuzz(
    "moe_config: headers of safetensors",
    st.one_of(st.binary(max_size=40), st.sampled_from((b"[1]", b"7", b"[" * 9000))),
)
def test_a_safetensors_header_is_names_or_a_sentence(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place, "config.json").write_text(json.dumps(CONFIG))
        Path(place, "a.safetensors").write_bytes(len(body).to_bytes(8, "little") + body)
        try:
            quant.detect(load(place))
        except ConfigError as error:
            assert str(error).strip()


LISTING = {
    "sha": "a" * 40, "gated": False,
    "siblings": [
        {"rfilename": "config.json", "size": 12, "blobId": "b" * 40},
        {"rfilename": "m.safetensors", "lfs": {"size": 9, "sha256": "c" * 64}},
    ],
}  # fmt: skip


@fuzz(
    "hub listing", st.one_of(damaged(LISTING).map(json.dumps), damaged_text(json.dumps(LISTING), "[" * 9000))
)
def test_h1_a_listing_has_a_commit_and_names_below_the_folder(text: str) -> None:
    with patch.object(hub, "_get", lambda *_args, **_more: text.encode("utf-8", "surrogatepass")):
        try:
            commit, files = hub.list_files("http://hub", "o/m", "main")[:2]
        except hub.HubError as error:
            assert str(error).strip()
            return
    assert is_commit(commit) and all(is_file_name(item.name) and item.size >= 0 for item in files)
    # What is accepted is read back the same by the next reader: the record of the download.
    with tempfile.TemporaryDirectory() as place:
        sizes = {item.name: item.size for item in files}
        weights.write_record(place, "o/m", "main", commit, sizes)
        found = json.loads(Path(weights.record_path(place, "o/m", "main")).read_text(encoding="utf-8"))
        assert (found["commit"], found["files"]) == (commit, sizes)
        weights.weights(Path(place), "o/m", "main", "/models", "/")


VERIFIED = {
    "commit": "a" * 40, "files": {"config.json": 2}, "model": "o/m", "revision": "main", "wanted": {"include": []}
}  # fmt: skip


@fuzz("weights: record and index", damaged(VERIFIED), damaged(INDEX))
def test_a_record_of_a_download_is_believed_or_fetched_again(record: Any, index: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, weights.record_path("/data", "o/m", "main")[1:])
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
        assert weights.weights(Path(place), "o/m", "main", "/models", "/data")["present"] is False
        selection.named_by(json.dumps(index).encode())


NAMES = st.lists(
    st.sampled_from(("..", "a", ".", "", "blobs", "outside", "x" * 300, *ODD_TEXTS)), max_size=5
).map("/".join)


@fuzz("Cache.remove", NAMES)
def test_nothing_outside_of_the_models_folder_is_removed(name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        models, outside = Path(place, "models"), Path(place, "outside")
        outside.write_text("keep")
        cache = Cache(str(models), "o/m")
        snapshot = cache.snapshot("a" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "a").symlink_to(os.path.relpath(outside, snapshot))
        # As the download does: names that are none were refused with the listing.
        if is_file_name(name):
            try:
                cache.remove("a" * 40, name)
            except OSError as error:
                assert error.strerror
        assert outside.read_text() == "keep"


@fuzz(
    "image reference",
    damaged_text("registry.example.com:5000/a/b:tag", "a@sha256:" + "a" * 64, "[::1]:5/x", "x"),
)
def test_an_image_reference_is_docker_s_or_a_sentence(text: str) -> None:
    try:
        found = reference.parse(text)
    except ValueError as error:
        assert str(error).strip()
        return
    again = found.name + (f":{found.tag}" if found.tag else "") + (f"@{found.digest}" if found.digest else "")
    assert reference.parse(again) == found
    assert found.name.isascii() and found.name.isprintable() and not found.name.startswith(("-", "."))
    assert len(found.repository) <= 255 and ".." not in found.registry


@fuzz("registry answers", damaged({"token": "t", "access_token": "u"}), damaged_text("sha256:" + "a" * 64),
      damaged_text('{"schemaVersion": 2}'), damaged_text('Bearer realm="https://r/t",service="s"'),
      st.sampled_from((200, 401, 404, 429, 500)))  # fmt: skip
def test_a_registry_gives_a_digest_or_a_sentence(
    token: Any, digest: str, manifest: str, header: str, status: int
) -> None:
    def send(_self: Any, url: str, method: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        assert authorization.isascii() and authorization.isprintable()
        if "/v2/" not in url:
            return 200, {}, json.dumps(token).encode()
        if "tags/list" in url:
            return 200, {}, json.dumps({"tags": token}).encode()
        asked = status if authorization or status != 401 else 401
        answer = {"docker-content-digest": digest, "www-authenticate": header}
        return (200 if authorization else asked), answer, manifest.encode("utf-8", "replace")

    with patch.object(client.Registry, "_send", send):
        try:
            found = client.Registry(reference.parse("r.example.com/a:b")).digest()
        except client.RegistryError as error:
            assert str(error).strip()
        else:
            assert reference.is_digest(found)


def answering(body: str) -> Any:
    """A registry that asks for a token and lists tags, with `body` as the answer to both."""

    def send(_self: Any, url: str, _method: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        if "/v2/" not in url or "tags/list" in url:
            return 200, {}, body.encode()
        return (404 if authorization else 401), {"www-authenticate": 'Bearer realm="https://r/t"'}, b""

    return patch.object(client.Registry, "_send", send)


@pytest.mark.parametrize("token", [7, True, ["t"], "a\nX-More: b", "\ud800", "é"])
def test_a_token_that_no_header_can_carry_is_none(token: Any) -> None:
    with answering(json.dumps({"token": token})), pytest.raises(client.RegistryError, match="gave no token"):
        client.Registry(reference.parse("r.example.com/a:b")).digest()


@pytest.mark.parametrize("tags", [True, 7, {"a": 1}])
def test_tags_that_are_no_list_are_not_named(tags: Any) -> None:
    body = json.dumps({"token": "t", "tags": tags})
    with answering(body), pytest.raises(client.RegistryError, match=r"has no r\.example\.com/a:b"):
        client.Registry(reference.parse("r.example.com/a:b")).digest()


def test_answers_and_files_that_are_nested_too_deeply(tmp_path: Path) -> None:
    deep = "[" * 100_000
    with answering(deep), pytest.raises(client.RegistryError, match="gave no token"):
        client.Registry(reference.parse("r.example.com/a:b")).digest()
    (tmp_path / "config.json").write_text(deep)
    assert folder.heads(tmp_path) is None
    tuned = tmp_path / "E=8,N=512,device_name=NVIDIA_GB10.json"
    tuned.write_text(deep)
    with pytest.raises(ConfigError, match="cannot be read"):
        doctor.read_file(tuned)


@pytest.mark.parametrize(
    "realm", ["https://[r/t", "https://[r]/t", "https://127.0.0.1:9/\xe9", f"https://{'a' * 64}.test/t"]
)
def test_a_login_that_is_sent_to_no_url(realm: str) -> None:
    registry = client.Registry(reference.parse("r.example.com/a:b"), timeout=1.0)
    with pytest.raises(client.RegistryError) as caught:
        registry._log_in(f'Bearer realm="{realm}"')
    assert "\n" not in str(caught.value)


METRICS = (
    'vllm:num_requests_running{engine="0"} 1.0\nvllm:generation_tokens_total{engine="0"} 12\n'
    'vllm:kv_cache_usage_perc{engine="0"} 0.5\n'
)


@fuzz("read_metrics", damaged_text(METRICS))
def test_metrics_are_finite(text: str) -> None:
    assert all(abs(value) < float("inf") for value in vars(read_metrics(text)).values())
