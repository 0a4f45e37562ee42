"""What the nodes of a replica must have in common."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.preflight import (
    preflight,
    preflight_drift,
    preflight_served_drift,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.drift import (
    NAMES,
    SERVED,
    drift,
    served_drift,
)


@pytest.fixture
def nodes(node: dict[str, Any]) -> dict[str, Any]:
    state = {
        **node,
        "image": {"present": True, "id": "sha256:1"},
        "model": {"kind": "hub", "present": True, "commit": "a" * 40},
        "packages": {"nvidia-container-toolkit": "1.18.0-1"},
        "time": {"synchronized": True, "offset_seconds": 0.4},
    }
    fabric = {"devices": [{"firmware": "28.45.4028"}, {"firmware": "28.45.4028"}]}
    return {name: copy.deepcopy({"state": state, "fabric": fabric}) for name in ("spark1", "spark2")}


def change(nodes: dict[str, Any], check: str) -> None:
    state = nodes["spark2"]["state"]
    if check == "same_driver":
        state["gpu"]["gpus"][0]["driver_version"] = "580.99.99"
    elif check == "same_kernel":
        state["kernel"]["running"] = "6.17.0-1008-nvidia"
    elif check == "same_docker":
        state["docker"]["version"] = "27.0.0"
    elif check == "same_toolkit":
        state["packages"]["nvidia-container-toolkit"] = "1.17.0-1"
    elif check == "same_image":
        state["image"]["id"] = "sha256:2"
    elif check == "same_model":
        state["model"]["commit"] = "b" * 40
    elif check == "same_firmware":
        nodes["spark2"]["fabric"]["devices"][1]["firmware"] = "28.40.1000"
    else:
        state["time"]["offset_seconds"] = -30.0


def test_equal_nodes_pass(nodes: dict[str, Any]) -> None:
    rows = drift(nodes, {})
    assert [row.check for row in rows] == list(NAMES)
    assert {row.status for row in rows} == {"pass"}


@pytest.mark.parametrize("check", NAMES)
def test_each_difference_is_named_with_its_nodes(nodes: dict[str, Any], check: str) -> None:
    change(nodes, check)
    (row,) = (row for row in drift(nodes, {}) if row.status != "pass")
    assert (row.check, row.status) == (check, "fail" if check == "same_driver" else "warn")
    assert "spark1" in row.found
    assert "spark2" in row.found
    assert row.reason
    assert row.remedy


def test_a_difference_can_be_accepted(nodes: dict[str, Any]) -> None:
    change(nodes, "same_driver")
    (row,) = (row for row in drift(nodes, {"accept": ["same_driver"]}) if row.status != "pass")
    assert (row.status, row.reason[:9]) == ("warn", "accepted:")


def test_the_names_are_known_to_preflight(node: dict[str, Any], settings: dict[str, Any]) -> None:
    rows = preflight(node, {**settings, "accept": list(NAMES)})
    assert [row for row in rows if row["check"] == "accept"] == []


def test_what_a_node_does_not_have_yet_does_not_differ(nodes: dict[str, Any]) -> None:
    nodes["spark2"]["state"].update(
        image={"present": False, "id": None}, model={"present": False, "commit": "b" * 40}, packages={}
    )
    nodes["spark2"]["fabric"] = None
    assert {row.status for row in (*drift(nodes, {}), *served_drift(nodes, {}))} == {"pass"}


@pytest.mark.parametrize(
    ("bases", "stores", "status"),
    [
        (("", ""), ("docker", "docker"), "pass"),
        (("sha256:1", ""), ("docker", "docker"), "pass"),
        (("sha256:1", "sha256:1"), ("docker", "containerd"), "pass"),
        (("sha256:1", "sha256:2"), ("docker", "containerd"), "fail"),
        (("id sha256:1", "id sha256:2"), ("docker", "docker"), "fail"),
        (("id sha256:1", "id sha256:2"), ("docker", "containerd"), "warn"),
        (("id sha256:1", "sha256:2"), ("docker", "docker"), "warn"),
    ],
)
def test_m11_images_that_are_built_on_each_node_are_compared_by_their_bases(
    nodes: dict[str, Any], bases: tuple[str, str], stores: tuple[str, str], status: str
) -> None:
    change(nodes, "same_image")
    for node, base, store in zip(nodes.values(), bases, stores, strict=True):
        node["state"]["image"]["labels"] = {"dgx-vllm.base": base}
        node["state"]["docker"] = {**node["state"].get("docker", {}), "image_store": store}
    for compare, failed in ((drift, "warn"), (served_drift, "fail")):
        (row,) = (row for row in compare(nodes, {"image_source": "build"}) if row.check == "same_image")
        assert row.status == (failed if status == "fail" else status)


@pytest.mark.parametrize("check", SERVED)
def test_what_the_stages_bring_fails_after_them(nodes: dict[str, Any], check: str) -> None:
    assert {row.status for row in served_drift(nodes, {})} == {"pass"}
    change(nodes, check)
    (row,) = (row for row in served_drift(nodes, {}) if row.status != "pass")
    assert (row.check, row.status) == (check, "fail")
    (row,) = (row for row in served_drift(nodes, {"accept": [check]}) if row.status != "pass")
    assert (row.status, row.reason[:9]) == ("warn", "accepted:")


def test_a_model_in_a_folder_has_no_commit_to_compare(nodes: dict[str, Any]) -> None:
    for node in nodes.values():
        node["state"]["model"] = {"kind": "path", "present": True, "commit": None}
    assert {row.status for row in served_drift(nodes, {})} == {"pass"}


def test_a_standalone_node_has_nothing_to_compare(nodes: dict[str, Any]) -> None:
    del nodes["spark2"]
    assert drift(nodes, {}) == []


def test_the_filter_takes_what_this_run_has_read(nodes: dict[str, Any]) -> None:
    change(nodes, "same_kernel")
    hostvars = {
        host: {
            "__dgx_vllm_node": {"state": node["state"]},
            "__dgx_vllm_fabric_read": {"fabric": node["fabric"]},
        }
        for host, node in nodes.items()
    }
    rows = preflight_drift({**hostvars, "spark3": {}}, ["spark1", "spark2", "spark3", "spark4"], {})
    assert [row["check"] for row in rows if row["status"] == "warn"] == ["same_kernel"]
    rows = preflight_served_drift({**hostvars, "spark3": {}}, ["spark1", "spark2", "spark3", "spark4"], {})
    assert [row["check"] for row in rows] == list(SERVED)


def images(nodes: dict[str, Any], **by_host: tuple[str, list[str], str]) -> list[str]:
    """Status and text of same_image for nodes with these ids, registry digests and stores."""
    for host, (image, digests, store) in by_host.items():
        nodes[host]["state"]["image"] = {"present": True, "id": image, "digests": digests}
        nodes[host]["state"]["docker"]["image_store"] = store
    (row,) = [row for row in served_drift(nodes, {"image_source": "pull"}) if row.check == "same_image"]
    return [row.status, row.found]


def test_one_digest_is_one_image_in_both_image_stores(nodes: dict[str, Any]) -> None:
    """S7: containerd's store takes the manifest's digest for the id, Docker's own that of the configuration."""
    found = images(
        nodes,
        spark1=("sha256:config", ["registry.test/a@sha256:manifest"], "docker"),
        spark2=("sha256:manifest", ["mirror.test/a@sha256:manifest", "x@sha256:other"], "containerd"),
    )
    assert found == ["pass", "sha256:manifest"]


def test_images_without_a_common_digest_are_not_compared_between_stores(nodes: dict[str, Any]) -> None:
    found = images(nodes, spark1=("sha256:1", [], "docker"), spark2=("sha256:2", [], "containerd"))
    assert found == ["warn", "docker store on spark1; containerd store on spark2"]


@pytest.mark.parametrize("digests", [[], ["a@sha256:3"]])
def test_different_images_in_one_store_fail(nodes: dict[str, Any], digests: list[str]) -> None:
    found = images(nodes, spark1=("sha256:1", [], "docker"), spark2=("sha256:2", digests, "docker"))
    assert found[0] == "fail"


def folders(nodes: dict[str, Any], **files: dict[str, str]) -> None:
    for host, own in files.items():
        nodes[host]["state"]["model"] = {"kind": "path", "present": True, "commit": None, "files": own}


def test_model_folders_are_compared_file_by_file(nodes: dict[str, Any]) -> None:
    """Class C: nobody but the operator changes a folder, so a difference stops the run before any change."""
    same = {"config.json": "2 44136fa355b3", "model.safetensors": "9"}
    folders(nodes, spark1=same, spark2=dict(same))
    (one,) = [one for one in drift(nodes, {}) if one.check == "same_model"]
    assert (one.status, one.found) == ("pass", "2 files alike")
    folders(nodes, spark1=same, spark2={"config.json": "2 000000000000", "extra.json": "1 0"})
    for found in (drift(nodes, {}), served_drift(nodes, {})):
        (one,) = [one for one in found if one.check == "same_model"]
        assert one.status == "fail"
        assert one.found == (
            "the model folders differ on spark1 and spark2: config.json, extra.json, model.safetensors"
        )
    (one,) = [one for one in drift(nodes, {"accept": ["same_model"]}) if one.check == "same_model"]
    assert one.status == "warn"
