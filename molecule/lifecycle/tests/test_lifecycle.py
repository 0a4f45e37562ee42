"""From a bare machine through several releases back to the bare machine, in the order of the file."""

from __future__ import annotations

import pytest

from testlib.node import UNIT, Node, Snapshot, differences
from testlib.runs import PROJECT, Operator

ARCHIVE = "/var/tmp/dgx-vllm.tar"
LOADED = "testbed/dgx-vllm:1.0"
CPU_BASE = "registry.testbed.test:5000/vllm-cpu:0.32.0"
BASE = "testbed/vllm-simulated:0.32.0"
# The image context puts /opt/venv/bin first, so the simulated `vllm` has to be there if it comes from the base.
UNDER_THE_PATCH = """
RUN mv /opt/venv/bin/vllm /opt/sim/vllm-cpu && ln -s /opt/sim/vllm /opt/venv/bin/vllm \\
 && sed -i 's|^VLLM = .*|VLLM = "/opt/sim/vllm-cpu"|' /opt/sim/vllm
"""
NOISE = ("server", "folders")
OF_ANSIBLE = {".ansible", ".ansible_async"}
"""Sections of a snapshot that may differ after an uninstallation; `folders` is compared by name."""


@pytest.fixture(scope="module", autouse=True)
def bare(node: Node) -> Snapshot:
    """The machine before the first run."""
    return node.snapshot()


@pytest.fixture(scope="module")
def releases() -> dict[str, str]:
    """Releases by their names in these tests."""
    return {}


def serving(node: Node) -> dict[str, str]:
    """The environment of the running server."""
    return dict(item.split("=", 1) for item in node.container["Config"]["Env"] if "=" in item)


def test_first_release_has_no_previous_one(operator: Operator, node: Node, releases: dict[str, str]) -> None:
    operator.succeed()
    releases["first"] = node.current
    run = operator.fail("playbooks/rollback.yml")
    assert f"spark1 has no previous release (current: {node.current}), so there is" in run.message
    assert node.completes()


def test_second_release(operator: Operator, node: Node, releases: dict[str, str]) -> None:
    operator.succeed(max_num_seqs=3)
    releases["second"] = node.current
    assert releases["second"] != releases["first"]
    assert node.release("previous") == releases["first"]
    assert serving(node)["MAX_NUM_SEQS"] == "3"


def test_verify_stage_alone_changes_nothing(operator: Operator, node: Node, releases: dict[str, str]) -> None:
    assert operator.succeed("site.yml", "--tags", "verify", max_num_seqs=3).counts["changed"] == 0
    assert node.current == releases["second"]


@pytest.mark.parametrize(("name", "sequences"), [("first", "4"), ("second", "3")])
def test_rollback_goes_back_and_forth(
    operator: Operator, node: Node, releases: dict[str, str], name: str, sequences: str
) -> None:
    operator.succeed("playbooks/rollback.yml")
    assert node.current == releases[name]
    assert serving(node)["MAX_NUM_SEQS"] == sequences
    assert node.completes()


def test_load_mode_names_what_is_wrong_with_the_archive(operator: Operator, node: Node) -> None:
    before = node.snapshot()
    run = operator.fail(image_source="load", image=LOADED, image_archive=ARCHIVE)
    assert f"There is no {ARCHIVE} on spark1: copy the archive there, or correct" in run.message
    assert not differences(before, node.snapshot())


def test_load_mode(operator: Operator, node: Node) -> None:
    """From an archive that `docker save` wrote; the tag is removed, so that only the archive has it."""
    image = node.container["Image"]
    node.sh(f"docker tag {image} {LOADED}; docker save -o {ARCHIVE} {LOADED}; docker rmi {LOADED}")
    loaded = {"image_source": "load", "image": LOADED, "image_archive": ARCHIVE}
    operator.succeed(**loaded)
    assert LOADED in node.image_names
    assert node.completes()
    assert operator.succeed(**loaded).counts["changed"] == 0
    node.sh(f"rm {ARCHIVE}")


def test_build_mode(operator: Operator, node: Node) -> None:
    """This checkout's patch layer on a base that serves without a GPU: vLLM's CPU build and the simulation layer."""
    for file in ("Dockerfile", "bench.py", "gb10.py", "vllm"):
        text = (PROJECT / "molecule/shared/sim" / file).read_text(encoding="utf-8")
        node.put(f"/var/tmp/base/{file}", text + (UNDER_THE_PATCH if file == "Dockerfile" else ""))
    node.sh(f"docker build -q -t {BASE} --build-arg BASE={CPU_BASE} /var/tmp/base; rm -r /var/tmp/base")
    built = {"image_source": "build", "image": "dgx-vllm", "image_build_base": BASE}
    operator.succeed(**built)
    assert any(name.startswith("dgx-vllm:") for name in node.image_names)
    log = node.log
    assert "using torch backend for FP8 linear layers" in log
    assert "using Triton backend for MOE layers" in log
    assert node.completes()
    assert operator.succeed(**built).counts["changed"] == 0


def test_verify_playbook_changes_nothing(operator: Operator, node: Node) -> None:
    before = node.snapshot()
    run = operator.succeed("playbooks/verify.yml")
    assert run.counts["changed"] == 0
    assert not differences(before, node.snapshot())


def test_uninstall_spares_what_others_run(operator: Operator, node: Node) -> None:
    node.sh(f"docker create --name other --entrypoint true {BASE}")
    before = node.snapshot()
    run = operator.fail("playbooks/uninstall.yml")
    assert "Docker on spark1 was installed by this role, but holds other" in run.message
    assert not differences(before, node.snapshot())
    node.sh(f"docker rm other; docker image rm {BASE} {CPU_BASE}")


def test_uninstall_leaves_the_machine_as_found_and_keeps_the_weights(
    operator: Operator, node: Node, bare: Snapshot
) -> None:
    operator.succeed("playbooks/uninstall.yml")
    left = differences(bare, node.snapshot(), without=NOISE)
    assert not [line for line in left if not line.startswith("data: ")]
    assert node.host.file("/var/lib/dgx-vllm").listdir() == ["models"]
    assert "models--testbed--tiny-moe-fp8" in node.host.file("/var/lib/dgx-vllm/models/hub").listdir()
    assert node.property("LoadState") == "not-found"


def test_state_absent_with_the_weights(operator: Operator, node: Node, bare: Snapshot) -> None:
    operator.succeed(state="absent", remove_weights=True)
    after = node.snapshot()
    assert not differences(bare, after, without=NOISE)
    gone, new = set(bare["folders"]) - set(after["folders"]), set(after["folders"]) - set(bare["folders"])
    assert (gone, new - OF_ANSIBLE) == (set(), set())
    assert not node.host.service(UNIT).exists


def test_uninstall_again_changes_nothing(operator: Operator) -> None:
    assert operator.succeed("playbooks/uninstall.yml").changed == []
