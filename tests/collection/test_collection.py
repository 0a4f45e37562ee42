"""The checkout builds into a collection that installs without network and works by its full names alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from helpers.ansible_run import ROOT, command, inventory, play

MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("dgx_vllm_*.py"))
FILTERS = sorted(path.stem for path in (ROOT / "plugins/filter").glob("*.yml"))
WANTED = (
    "LICENSE",
    "README.md",
    "CHANGELOG.rst",
    "docs/architecture.md",
    "docs/results/h100/README.md",
    "meta/runtime.yml",
    "site.yml",
    "playbooks/site.yml",
    "playbooks/preflight.yml",
    "roles/dgx_vllm/README.md",
    "roles/dgx_vllm/meta/argument_specs.yml",
    "roles/dgx_vllm/templates/dgx-vllm.service.j2",
    "plugins/modules/dgx_vllm_health.py",
    "plugins/action/dgx_vllm_health.py",
    "templates/report.txt.j2",
    "files/image/Dockerfile",
    "files/image/.dockerignore",
    "files/image/entrypoint.py",
)
UNWANTED = (
    "tests",
    "molecule",
    "inventory",
    "reports",
    "scripts",
    "requirements.txt",
    "pyproject.toml",
    "ansible.cfg",
)
PARTS = (
    "__pycache__",
    ".collections",
    ".git",
    ".ansible",
    ".venv",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
)


class Installed(NamedTuple):
    """The collection as a user has it: an archive, and a path that has nothing of the checkout in it."""

    archive: Path
    path: Path
    home: Path

    @property
    def root(self) -> Path:
        return self.path / "ansible_collections/dgx_vllm/spark"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return command(*words, home=self.home, cwd=self.home, **self.environment())

    def environment(self) -> dict[str, str]:
        """Nothing of the checkout: no ansible.cfg, no roles path, no .collections."""
        return {
            "ANSIBLE_CONFIG": str(self.home / "empty.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.path),
            "ANSIBLE_ROLES_PATH": str(self.home / "roles"),
            "ANSIBLE_INJECT_FACT_VARS": "false",
        }


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("collection")
    done = command("ansible-galaxy", "collection", "build", "--output-path", str(place / "built"), home=place)
    assert done.returncode == 0, done.stderr
    (archive,) = (place / "built").glob("dgx_vllm-spark-*.tar.gz")
    found = Installed(archive, place / "installed", place)
    (place / "empty.cfg").write_text("", encoding="utf-8")
    link = found.path / "ansible_collections/ansible"  # for the callback that ansible_run reads
    link.parent.mkdir(parents=True)
    link.symlink_to(ROOT / ".collections/ansible_collections/ansible")
    done = found.run(
        "ansible-galaxy",
        "collection",
        "install",
        "--offline",
        "--no-deps",
        "-p",
        str(found.path),
        str(archive),
    )
    assert done.returncode == 0, done.stderr
    return found


@pytest.fixture(scope="session")
def names(installed: Installed) -> set[str]:
    with tarfile.open(installed.archive) as archive:
        return set(archive.getnames())


def test_everything_a_user_needs_is_in_it(names: set[str]) -> None:
    assert [name for name in WANTED if name not in names] == []


def test_nothing_else_is_in_it(names: set[str]) -> None:
    assert [name for name in names if name.split("/")[0] in UNWANTED] == []
    assert [
        name for name in names if set(name.split("/")) & set(PARTS) or name.endswith((".pyc", ".tar.gz"))
    ] == []
    assert [name for name in names if name.startswith(".")] == []


def test_archive_is_small(installed: Installed) -> None:
    """A forgotten build_ignore entry shows here first."""
    assert installed.archive.stat().st_size < 1_000_000


def test_it_needs_no_other_collection(installed: Installed) -> None:
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
    listed = yaml.safe_load((ROOT / "requirements.yml").read_text(encoding="utf-8"))["collections"]
    assert galaxy["dependencies"] == {}
    text = "\n".join(path.read_text(encoding="utf-8") for path in installed.root.rglob("*.yml"))
    assert [item["name"] for item in listed if f"{item['name']}." in text] == []


def test_scripts_of_the_image_stay_executable(installed: Installed) -> None:
    for path in sorted((ROOT / "files/image").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            copy = installed.root / path.relative_to(ROOT)
            assert bool(copy.stat().st_mode & 0o100) == bool(path.stat().st_mode & 0o100), path.name


def test_image_built_from_it_has_the_name_of_one_built_from_a_checkout(installed: Installed) -> None:
    from ansible_collections.dgx_vllm.spark.plugins.filter.image import tree_digest

    assert tree_digest(str(installed.root / "files/image")) == tree_digest(str(ROOT / "files/image"))


@pytest.mark.parametrize("name", MODULES)
def test_module_has_a_manual(installed: Installed, name: str) -> None:
    done = installed.run("ansible-doc", "--json", "-t", "module", f"dgx_vllm.spark.{name}")
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)[f"dgx_vllm.spark.{name}"]
    assert page["doc"]["short_description"]
    assert page["examples"]
    assert page["return"]


@pytest.mark.parametrize("name", FILTERS)
def test_filter_has_a_manual(installed: Installed, name: str) -> None:
    done = installed.run("ansible-doc", "--json", "-t", "filter", f"dgx_vllm.spark.{name}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[f"dgx_vllm.spark.{name}"]["doc"]["short_description"]


def test_role_has_a_manual(installed: Installed) -> None:
    done = installed.run("ansible-doc", "--json", "-t", "role", "dgx_vllm.spark.dgx_vllm")
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["dgx_vllm.spark.dgx_vllm"]["entry_points"]
    assert points["main"]["options"]["dgx_vllm_model"]["description"]


@pytest.mark.parametrize("name", ["site", "preflight", "verify", "rollback", "uninstall"])
def test_playbook_is_found_by_its_full_name(installed: Installed, name: str) -> None:
    hosts = inventory(installed.home / "syntax", {"node": {}}, dgx_vllm_model="org/name")
    done = installed.run("ansible-playbook", "-i", str(hosts), "--syntax-check", f"dgx_vllm.spark.{name}")
    assert done.returncode == 0, done.stderr


def changed_tasks(results: list[tuple[str, str, dict[str, object]]]) -> list[str]:
    return [task for task, _, result in results if result.get("changed")]


@pytest.mark.parametrize("name", ["preflight", "site"])
def test_machine_that_is_no_gb10_is_refused_before_any_change(installed: Installed, name: str) -> None:
    """On this machine, without a node: the role, its filters and modules are all found by their full names."""
    hosts = inventory(installed.home / name, {"here": {}}, dgx_vllm_model="org/name")
    words = ["-e", json.dumps({"ansible_become": False, "dgx_vllm_driver_denied": ["*"]})]
    run = play(f"dgx_vllm.spark.{name}", hosts, *words, home=installed.home, **installed.environment())
    assert run.rc == 2
    assert "here: gpu:" in run.failure("here"), run.failure("here")
    assert changed_tasks(run.results()) == []
    last = run.results()[-1]
    assert last[0].endswith("Stop before any change"), last[0]


def test_role_is_usable_from_somebody_elses_playbook(installed: Installed) -> None:
    play_file = installed.home / "theirs.yml"
    task = {"name": "Serve", "ansible.builtin.include_role": {"name": "dgx_vllm.spark.dgx_vllm"}}
    play_file.write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]), encoding="utf-8"
    )
    hosts = inventory(installed.home / "theirs", {"here": {}}, dgx_vllm_model="org/name", dgx_vllm_port=0)
    run = play(play_file, hosts, home=installed.home, **installed.environment())
    assert "dgx_vllm_port is 0" in run.failure("here")


def test_modules_compile_for_the_oldest_python_of_a_node(installed: Installed) -> None:
    """ansible-core 2.18 runs its modules on Python 3.8 and newer; ours say 3.9."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ast, pathlib, sys\n"
            "for path in pathlib.Path(sys.argv[1]).rglob('*.py'):\n"
            "    ast.parse(path.read_text('utf-8'), str(path), feature_version=(3, 9))\n",
            str(installed.root / "plugins"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
