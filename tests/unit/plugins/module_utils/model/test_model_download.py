"""Weights on a node: fetched, resumed, verified, adopted, refused."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.cache import Cache
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.download import (
    ModelError,
    Request,
    ensure,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import record_path

COMMIT = "c" * 40
TOTAL = 5002


def request(hub: Any, tmp_path: Path, **given: Any) -> Request:
    """A request for the hub's model into tmp_path."""
    base = {
        "model": "org/tiny",
        "models_dir": str(tmp_path / "models"),
        "image": "img",
        "endpoint": hub.url,
        "data_dir": str(tmp_path / "data"),
    }
    return Request(**{**base, **given})


def record(tmp_path: Path) -> Path:
    """Where the record of org/tiny@main is."""
    return Path(record_path(str(tmp_path / "data"), "org/tiny", "main"))


def blob(tmp_path: Path) -> Path:
    """The weight file's blob."""
    return (tmp_path / f"models/hub/models--org--tiny/snapshots/{COMMIT}/model.safetensors").resolve()


def test_fetch_then_nothing_to_do_without_a_network(hub: Any, docker: Any, tmp_path: Path) -> None:
    asked = request(hub, tmp_path)
    first = ensure(asked, False, docker)
    assert (first.changed, first.commit, first.bytes_fetched) == (True, COMMIT, TOTAL)
    assert json.loads(record(tmp_path).read_text()) == {
        "model": "org/tiny",
        "revision": "main",
        "commit": COMMIT,
        "files": {"config.json": 2, "model.safetensors": 5000},
        "wanted": {"include": [], "exclude": [], "load_format": "auto"},
    }
    assert oct(record(tmp_path).stat().st_mode & 0o777) == "0o644"
    asked_before = len(hub.seen)
    second = ensure(asked, False, docker)
    assert (second.changed, second.bytes_fetched) == (False, 0)
    assert len(hub.seen) == asked_before
    assert len(docker.runs) == 1


def test_the_download_container_is_confined_and_the_token_is_in_no_argument(
    hub: Any, docker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    hub.token = "hf_t0kent0ken"
    ensure(request(hub, tmp_path, token="hf_t0kent0ken"), False, docker)
    words = docker.runs[0]
    text = " ".join(words)
    assert "hf_t0ken" not in str(docker.calls)
    assert docker.environments[0]["HF_TOKEN"] == "hf_t0kent0ken"
    assert docker.environments[0]["HF_ENDPOINT"] == hub.url
    assert "--env HF_TOKEN " in text
    assert "--env HTTPS_PROXY " in text
    assert "--cap-drop ALL --security-opt no-new-privileges" in text
    assert "--privileged" not in text
    assert words[-5:] == ["img", "download", "org/tiny", "--revision", "main"]


def test_check_mode_says_so_and_writes_nothing(hub: Any, docker: Any, tmp_path: Path) -> None:
    outcome = ensure(request(hub, tmp_path), True, docker)
    assert outcome.changed
    assert "2 files" in outcome.msg
    assert docker.calls == []
    assert list(tmp_path.iterdir()) == []


def test_check_mode_without_a_hub_does_not_fail(hub: Any, docker: Any, tmp_path: Path) -> None:
    hub.status = 503
    assert ensure(request(hub, tmp_path), True, docker).changed


def test_an_interrupted_download_goes_on(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.fill()
    blob(tmp_path).unlink()
    outcome = ensure(request(hub, tmp_path), False, docker)
    assert outcome.bytes_fetched == 5000
    assert blob(tmp_path).read_bytes() == hub.files["model.safetensors"]


def test_a_cache_without_a_record_is_verified_and_adopted(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.fill()
    assert ensure(request(hub, tmp_path), True, docker).changed
    assert not record(tmp_path).exists()
    outcome = ensure(request(hub, tmp_path), False, docker)
    assert (outcome.changed, outcome.bytes_fetched, docker.runs) == (True, 0, [])
    assert record(tmp_path).exists()


@pytest.mark.parametrize("shared", [False, True])
def test_a_damaged_file_is_fetched_again(hub: Any, docker: Any, tmp_path: Path, shared: bool) -> None:
    docker.shared = shared
    docker.spoil = 1
    outcome = ensure(request(hub, tmp_path), False, docker)
    assert outcome.changed
    assert len(docker.runs) == 2
    assert blob(tmp_path).read_bytes() == hub.files["model.safetensors"]


def test_a_file_that_stays_damaged_is_named_and_not_recorded(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.spoil = 9
    with pytest.raises(ModelError, match=r"model\.safetensors .*after two downloads .*checksum"):
        ensure(request(hub, tmp_path), False, docker)
    assert not record(tmp_path).exists()
    docker.spoil = 0
    assert ensure(request(hub, tmp_path), False, docker).changed


def test_a_recorded_model_that_lost_a_file_is_healed(hub: Any, docker: Any, tmp_path: Path) -> None:
    asked = request(hub, tmp_path)
    ensure(asked, False, docker)
    blob(tmp_path).write_bytes(b"short")
    assert ensure(asked, False, docker).changed
    assert blob(tmp_path).stat().st_size == 5000


def test_a_pinned_commit(hub: Any, docker: Any, tmp_path: Path) -> None:
    asked = request(hub, tmp_path, revision=COMMIT)
    assert ensure(asked, False, docker).commit == COMMIT
    assert not ensure(asked, False, docker).changed


@pytest.mark.parametrize("shared", [False, True])
def test_without_a_network_a_complete_cache_is_adopted(
    hub: Any, docker: Any, tmp_path: Path, shared: bool
) -> None:
    docker.shared = shared
    docker.fill()
    hub.status = 503
    outcome = ensure(request(hub, tmp_path), False, docker)
    assert (outcome.changed, outcome.bytes_fetched) == (True, 0)
    assert "could not be asked" in outcome.msg
    assert record(tmp_path).exists()


def _lose_config(folder: Path) -> None:
    (folder / "snapshots" / COMMIT / "config.json").unlink()


def _leave_partial(folder: Path) -> None:
    (folder / "blobs" / "abc.incomplete").write_text("x")


def _name_more_shards(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (folder / "snapshots" / COMMIT / "model.safetensors.index.json").write_text(json.dumps(index))


def _lose_ref(folder: Path) -> None:
    shutil.rmtree(folder / "refs")


@pytest.mark.parametrize("harm", [_lose_config, _leave_partial, _name_more_shards, _lose_ref])
def test_without_a_network_an_incomplete_cache_is_not(
    hub: Any, docker: Any, tmp_path: Path, harm: Any
) -> None:
    docker.fill()
    harm(tmp_path / "models/hub/models--org--tiny")
    hub.status = 503
    with pytest.raises(ModelError, match="answered 503"):
        ensure(request(hub, tmp_path), False, docker)


def test_without_a_network_a_damaged_cache_is_refused(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.spoil = 1
    docker.fill()
    hub.status = 503
    with pytest.raises(ModelError, match="damaged"):
        ensure(request(hub, tmp_path), False, docker)


def test_a_full_disk_is_refused_before_anything_is_fetched(
    hub: Any, docker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(TOTAL * 1.05) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelError, match="dgx_vllm_models_dir"):
        ensure(request(hub, tmp_path), False, docker)
    assert docker.calls == []


def test_download_errors_are_explained(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.failure = "OSError: [Errno 28] No space left on device"
    with pytest.raises(ModelError, match="A disk is full"):
        ensure(request(hub, tmp_path), False, docker)


def test_a_token_in_an_error_text_is_masked(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.failure = "bad token hf_abcdefgh1"
    hub.token = "hf_abcdefgh1"
    with pytest.raises(ModelError) as error:
        ensure(request(hub, tmp_path, token="hf_abcdefgh1"), False, docker)
    assert "hf_abcdefgh1" not in str(error.value)


def test_a_download_that_takes_too_long_is_stopped(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.times_out = True
    with pytest.raises(ModelError, match="files that are complete are kept"):
        ensure(request(hub, tmp_path, timeout=1), False, docker)
    assert docker.calls[-1] == ["rm", "--force", "dgx-vllm-download"]


def test_the_image_must_be_there(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.image_present = False
    with pytest.raises(ModelError, match="--tags image"):
        ensure(request(hub, tmp_path), False, docker)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": "other", "revision": "main"}'])
def test_a_broken_record_counts_as_none(hub: Any, docker: Any, tmp_path: Path, content: str) -> None:
    record(tmp_path).parent.mkdir(parents=True)
    record(tmp_path).write_text(content)
    assert ensure(request(hub, tmp_path), False, docker).changed


def test_part_that_no_download_continues_is_neither_counted_nor_kept(tmp_path: Path) -> None:
    blobs = tmp_path / "hub/models--org--tiny/blobs"
    blobs.mkdir(parents=True)
    orphan, part = blobs / "abc.0123abcd.incomplete", blobs / "abc.incomplete"
    orphan.write_bytes(b"12345")
    part.write_bytes(b"123")
    cache = Cache(str(tmp_path), "org/tiny")
    assert cache.partial_bytes() == 3
    cache.remove_orphans()
    assert not orphan.exists()
    assert part.exists()


def test_class_g_the_second_copy_of_the_weights_is_not_fetched(hub: Any, docker: Any, tmp_path: Path) -> None:
    hub.files["original/model.safetensors"] = b"o" * 5000
    hub.files["metal/model.bin"] = b"m" * 5000
    outcome = ensure(request(hub, tmp_path), False, docker)
    assert outcome.bytes_fetched == TOTAL
    assert docker.runs[0][-2:] == ["config.json", "model.safetensors"]
    assert set(json.loads(record(tmp_path).read_text())["files"]) == {"config.json", "model.safetensors"}
    assert not ensure(request(hub, tmp_path), False, docker).changed


def test_class_g_the_hubs_index_says_which_files_belong_to_the_model(
    hub: Any, docker: Any, tmp_path: Path
) -> None:
    index = {"weight_map": {"a": "model.safetensors"}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.files["all.safetensors"] = b"a" * 5000
    ensure(request(hub, tmp_path), False, docker)
    assert "all.safetensors" not in docker.runs[0]


def test_class_g_the_operators_patterns(hub: Any, docker: Any, tmp_path: Path) -> None:
    hub.files["model-Q4.gguf"] = b"q" * 10
    hub.files["notes.pdf"] = b"p"
    wanted = Wanted(include=("*.json", "*Q4.gguf"))
    ensure(request(hub, tmp_path, wanted=wanted), False, docker)
    assert docker.runs[0][-2:] == ["config.json", "model-Q4.gguf"]
    again = ensure(request(hub, tmp_path, wanted=Wanted(exclude=("*.pdf",))), False, docker)
    assert again.changed, "another choice is looked at again"
    with pytest.raises(ModelError, match="dgx_vllm_model_include"):
        ensure(request(hub, tmp_path, wanted=Wanted(include=("nothing",))), False, docker)


def test_class_h_the_environment_reaches_the_download_and_no_argument(
    hub: Any, docker: Any, tmp_path: Path
) -> None:
    given = {
        "HF_HUB_DISABLE_XET": "1",
        "HTTPS_PROXY": "http://user:pa55word@proxy.example:3128",
        "SSL_CERT_FILE": "/etc/ssl/site.pem",
    }
    docker.failure = "ProxyError: http://user:pa55word@proxy.example:3128 refused"
    with pytest.raises(ModelError) as caught:
        ensure(request(hub, tmp_path, environment=given), False, docker)
    assert "pa55word" not in str(caught.value) and "pa55word" not in str(docker.calls)
    assert {name: docker.environments[0][name] for name in given} == given
    text = " ".join(docker.runs[0])
    assert all(f"--env {name} " in text for name in given)
    assert "--volume /etc/ssl/site.pem:/etc/ssl/site.pem:ro" in text


def test_class_h_a_download_without_progress_is_stopped(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.hangs = True
    with pytest.raises(ModelError, match=r"wrote nothing for 0.2 s .* HF_HUB_DISABLE_XET") as caught:
        ensure(request(hub, tmp_path, stall_timeout=0.2), False, docker)
    assert docker.calls[-1] == ["rm", "--force", "dgx-vllm-download"]
    assert "--tags model" in str(caught.value)


def test_class_h_a_slow_download_with_progress_is_not_stopped(hub: Any, docker: Any, tmp_path: Path) -> None:
    docker.trickles = 12
    assert ensure(request(hub, tmp_path, stall_timeout=0.6), False, docker).changed


def test_m5_a_verified_run_fetches_what_was_damaged_on_the_disk(
    hub: Any, docker: Any, tmp_path: Path
) -> None:
    asked = request(hub, tmp_path)
    ensure(asked, False, docker)
    blob(tmp_path).write_bytes(b"w" * 4999 + b"X")
    assert not ensure(asked, False, docker).changed, "names and sizes are right"
    verified = asked._replace(verify=True)
    assert "would fetch 1 files" in ensure(verified, True, docker).msg
    repaired = ensure(verified, False, docker)
    assert (repaired.changed, repaired.bytes_fetched) == (True, 5000)
    assert blob(tmp_path).read_bytes() == hub.files["model.safetensors"]
    assert json.loads(record(tmp_path).read_text())["revision"] == "main"
    again = ensure(verified, False, docker)
    assert (again.changed, again.msg) == (False, "present, verified against the hub")
    assert len(docker.runs) == 2


def test_m5_verifying_stays_at_the_commit_and_works_without_a_hub(
    hub: Any, docker: Any, tmp_path: Path
) -> None:
    asked = request(hub, tmp_path, verify=True)
    ensure(asked, False, docker)
    hub.seen.clear()
    ensure(asked, False, docker)
    assert all("/revision/main" not in path for _, path, _ in hub.seen)
    away = asked._replace(endpoint="http://127.0.0.1:9")
    assert not ensure(away, False, docker).changed
    blob(tmp_path).write_bytes(b"w" * 4999 + b"X")
    with pytest.raises(ModelError, match=r"model\.safetensors .* is damaged"):
        ensure(away, False, docker)


def test_m15_a_download_that_still_runs_is_left_alone(hub: Any, docker: Any, tmp_path: Path) -> None:
    lock = tmp_path / "data/state/download.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="Another download runs on this node"):
            ensure(request(hub, tmp_path), False, docker)
        assert docker.calls == []
    assert ensure(request(hub, tmp_path), False, docker).changed
