"""M11: which base the nodes build from. The role's own tasks here, with a docker that only notes its calls."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.fake_registry import DIGEST, FakeRegistry
from helpers.releases import node
from helpers.stages import DEFAULT_BASE, Stages

LOCKED = "sha256:" + "b" * 64


@pytest.fixture()
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_m11_all_nodes_get_the_digest_that_the_operators_machine_was_told(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    stages = Stages(tmp_path)
    show = {
        "name": "Show",
        "ansible.builtin.debug": {"msg": "{{ __dgx_vllm_image_lookup }} {{ __dgx_vllm_base_pinned }}"},
    }
    preflight = yaml.safe_load((stages.tasks / "preflight.yml").read_text())
    (ask,) = (task for task in preflight if "base image" in task["name"])
    (stages.tasks / "probe.yml").write_text(json.dumps([ask, show]), encoding="utf-8")
    base = f"{registry.host}/team/image:0.33.0"
    hosts: dict[str, dict[str, Any]] = {
        "one": node(),
        "two": node(),
        "old": {"dgx_vllm_image_source": "pull"},
    }
    lock = tmp_path / "dgx_vllm.lock.txt"
    lock.write_text("")

    def pinned(*words: str, **variables: Any) -> str:
        run = stages.run("probe", hosts, *words, dgx_vllm_image_build_base=base, **variables)
        assert run.rc == 0, [run.failure(host) for host in hosts]
        texts = {host: found["msg"] for task, host, found in run.results() if task.endswith("Show")}
        assert texts["one"] == texts["two"]
        return texts["one"].split()[-1]

    assert pinned("--check") == f"{base}@{DIGEST}"
    assert lock.read_text() == ""
    assert pinned() == pinned() == f"{base}@{DIGEST}"
    assert sum("/manifests/0.33.0" in path for _, path, _ in registry.seen) == 2, "the third run did not ask"
    lock.write_text(lock.read_text().replace(DIGEST, LOCKED))
    assert pinned() == f"{base}@{LOCKED}"
    assert pinned(dgx_vllm_image_base_update=True) == f"{base}@{DIGEST}"
    assert DIGEST in lock.read_text()


@pytest.mark.parametrize(
    ("here", "locked", "ref", "label"),
    [
        ({"present": False, "digests": []}, True, f"{DEFAULT_BASE}@{LOCKED}", LOCKED),
        (
            {"present": True, "digests": [f"vllm/vllm-openai@{LOCKED}"]},
            True,
            f"{DEFAULT_BASE}@{LOCKED}",
            LOCKED,
        ),
        ({"present": True, "digests": []}, True, DEFAULT_BASE, "id sha256:77"),
        ({"present": False, "digests": []}, False, DEFAULT_BASE, "id sha256:77"),
    ],
    ids=["fresh", "pulled", "loaded", "unknown"],
)
def test_m11_what_a_node_builds_from(
    here: dict[str, Any], locked: bool, ref: str, label: str, tmp_path: Path
) -> None:
    stages = Stages(tmp_path, "common/state")
    if not locked:
        (tmp_path / "dgx_vllm.lock.txt").write_text("")
    absent = "" if here["present"] else '[ -e "$AT/pulled" ] || exit 1;'
    stages.tool(
        "docker", f'case "$1" in pull) touch "$AT/pulled" ;; image) {absent} echo sha256:77 ;; esac\n'
    )
    (tmp_path / "context").mkdir()
    context = json.dumps({"__dgx_vllm_image_context": str(tmp_path / "context")})
    run = stages.run("image/build", {"one": node(base_image=here)}, "-e", context)
    assert run.rc == 0, run.failure("one")
    (build,) = (call for call in stages.calls if call.startswith("docker build"))
    assert f"BASE_IMAGE={ref} " in build and f"--label dgx-vllm.base={label} " in build
    assert ("docker pull --quiet " + ref in stages.calls) is (not locked)
    ledger = stages.node("one", "lib/state/ledger.json")
    noted = json.loads(ledger.read_text())["base_images"] if ledger.exists() else []
    fresh = [f"docker.io/vllm/vllm-openai@{LOCKED}" if locked else DEFAULT_BASE]
    assert noted == ([] if here["present"] else fresh)
