"""Filters for the image: the digest that is a built image's tag, and the registry that Docker logs in to."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.filter import image as filters
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import parse


def test_every_filter_is_offered() -> None:
    assert set(filters.FilterModule().filters()) == {
        "image_leader", "locked_digest", "pinned_image", "registry_of", "tree_digest",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("registry.example.com/dgx-vllm:0.33.0", "registry.example.com"),
        ("registry.example.com:5000/team/dgx-vllm@sha256:" + "0" * 64, "registry.example.com:5000"),
        ("localhost/dgx-vllm:1", "localhost"),
        ("vllm/vllm-openai:v0.33.0", filters.DOCKER_HUB_LOGIN),
        ("ubuntu:24.04", filters.DOCKER_HUB_LOGIN),
        ("docker.io/vllm/vllm-openai:v0.33.0", filters.DOCKER_HUB_LOGIN),
    ],
)
def test_registry_is_the_one_docker_would_ask(image: str, registry: str) -> None:
    assert filters.registry_of(image) == registry
    assert parse(image).registry in (registry, "docker.io"), "the client asks the same one"


def tree(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM base\n")
    (root / "sub/run.sh").write_text("#!/bin/sh\n")
    (root / "sub/run.sh").chmod(0o755)
    return root


def test_tree_digest_is_that_of_the_content(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    digest = filters.tree_digest(str(first), "base:1")
    assert len(digest) == 12
    assert digest == filters.tree_digest(str(second), "base:1")
    assert digest == filters.tree_digest(str(first / ".." / "a"), "base:1")
    assert digest != filters.tree_digest(str(first), "base:2")


def test_tree_digest_sees_names_modes_and_bytes(tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    seen = {filters.tree_digest(str(root))}
    (root / "Dockerfile").write_text("FROM other\n")
    seen.add(filters.tree_digest(str(root)))
    (root / "sub/run.sh").chmod(0o644)
    seen.add(filters.tree_digest(str(root)))
    (root / "sub/run.sh").rename(root / "sub/other.sh")
    seen.add(filters.tree_digest(str(root)))
    assert len(seen) == 4


def test_tree_digest_passes_over_caches(tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    before = filters.tree_digest(str(root))
    (root / "sub/__pycache__").mkdir()
    (root / "sub/__pycache__/x.pyc").write_bytes(b"x")
    assert filters.tree_digest(str(root)) == before


@pytest.mark.parametrize("name", ["README.md", ".x.py.swp", "x.py~", "#x.py#", "x.py.orig"])
def test_tree_digest_passes_over_what_does_nothing(name: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    before = filters.tree_digest(str(root))
    (root / "sub" / name).write_text("a word")
    assert filters.tree_digest(str(root)) == before


def test_tree_digest_does_not_depend_on_where_the_tree_lies(tmp_path: Path) -> None:
    inside = tree(tmp_path / ".pytest_cache" / "a")
    assert filters.tree_digest(str(inside)) == filters.tree_digest(str(tree(tmp_path / "b")))


def test_the_leader_is_the_first_node_that_wants_the_image() -> None:
    hostvars = {
        "gone": {"dgx_vllm_image": "a", "dgx_vllm_state": "absent"},
        "other": {"dgx_vllm_image": "b"},
        "default": {},
        "same": {"dgx_vllm_image": "a"},
    }
    assert filters.image_leader(hostvars, list(hostvars), "a") == "default"
    assert filters.image_leader(hostvars, ["same", "default"], "a") == "same"
    assert filters.image_leader(hostvars, ["gone"], "a") == ""


def test_a_host_that_loads_or_builds_its_image_asks_no_registry() -> None:
    hostvars = {
        "loads": {"dgx_vllm_image_source": "load"},
        "unsaid": {},
        "pulls": {"dgx_vllm_image_source": "pull"},
    }
    assert filters.image_leader(hostvars, list(hostvars), "a") == "pulls"
    assert filters.image_leader(hostvars, ["loads", "unsaid"], "a") == "unsaid"


OURS, OTHER = f"sha256:{'a' * 64}", f"sha256:{'e' * 64}"


@pytest.mark.parametrize(
    ("image", "told", "used"),
    [
        ("registry.example.com/team/image:1.0", OURS, f"registry.example.com/team/image@{OURS}"),
        ("registry.example.com:5000/image", OURS, f"registry.example.com:5000/image@{OURS}"),
        (f"registry.example.com/image@{OURS}", OTHER, f"registry.example.com/image@{OURS}"),
        (f"registry.example.com/image:1.0@{OURS}", "", f"registry.example.com/image@{OURS}"),
    ],
)
def test_a_node_says_a_digest_and_nothing_else(image: str, told: str, used: str) -> None:
    assert filters.pinned_image(image, told) == used


@pytest.mark.parametrize(
    "told", ["", "evil@" + OURS, f"registry.attacker.example/evil@{OURS}", OURS + "\n", OURS[:-1], OURS + "0"]
)
def test_an_answer_that_is_no_digest_stops_every_node(told: str) -> None:
    with pytest.raises(AnsibleFilterError, match="did not answer with a digest"):
        filters.pinned_image("registry.example.com/image:1.0", told)
