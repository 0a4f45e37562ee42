"""Unit and environment file for five variable sets and two replicas, and how systemd and Docker read them.

After a change that is meant: pytest tests/role --update-golden, then look at the difference.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers import readers
from helpers.ansible_run import ROOT
from helpers.start import START

GOLDEN = Path(__file__).resolve().parent / "golden"
STANDALONE = ("hub", "everything", "local_path", "cdi", "build")
REPLICAS = ("pair_head", "pair_worker", "ray_head", "ray_worker")
CASES = STANDALONE + REPLICAS
OLD_DOCKER = ("everything", "local_path")  # asks for the runtime hook; has a Docker without CDI
Rendered = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def entrypoint() -> ModuleType:
    """The image's entry point, which reads VLLM_EXTRA_ARGS."""
    spec = importlib.util.spec_from_file_location("dgx_vllm_entrypoint", ROOT / "files/image/entrypoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("part", "suffix"), [("draft", "service"), ("env", "env"), ("firewall", "nft")])
def test_text_is_the_golden_one(
    rendered: Rendered, case: str, part: str, suffix: str, request: pytest.FixtureRequest
) -> None:
    text = rendered[case][part].replace(rendered[case]["build_tag"], "@BUILD@")
    file = GOLDEN / f"{case}.{suffix}"
    if request.config.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text, (
        f"{file.name} differs; if it is meant: pytest --update-golden"
    )


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


def test_numbers_as_strings_render_the_same(rendered: Rendered) -> None:
    """`-e dgx_vllm_port=8123` gives a string; a release must not differ by that."""
    assert rendered["everything_as_strings"] == rendered["everything"]


@pytest.mark.parametrize("case", CASES)
def test_release_is_named_by_its_content(rendered: Rendered, case: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", rendered[case]["release"])
    assert rendered[case]["unit"] == rendered[case]["draft"].replace("@RELEASE@", rendered[case]["release"])
    assert readers.setting(rendered[case]["unit"], "X-DgxVllm-Release") == [rendered[case]["release"]]
    assert len({rendered[name]["release"] for name in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES)
def test_no_template_is_left_in_the_text(rendered: Rendered, case: str) -> None:
    for part in ("unit", "env"):
        text = rendered[case][part]
        assert not [mark for mark in ("{{", "{%", "@RELEASE@", "\n\n\n", "None") if mark in text]
        assert text.endswith("\n")


@pytest.mark.parametrize("case", CASES)
def test_docker_reads_the_arguments_back(rendered: Rendered, case: str, entrypoint: ModuleType) -> None:
    found = readers.docker_env_file(rendered[case]["env"])
    wanted = [str(argument) for argument in rendered[case]["serve_args"]]
    assert shlex.split(found["VLLM_EXTRA_ARGS"]) == wanted
    assert entrypoint.split_words(found["VLLM_EXTRA_ARGS"]) == wanted


@pytest.mark.parametrize("case", CASES)
def test_extra_arguments_are_the_last_ones(rendered: Rendered, cases: Rendered, case: str) -> None:
    extra = cases[case].get("dgx_vllm_extra_args", [])
    assert rendered[case]["serve_args"][len(rendered[case]["serve_args"]) - len(extra) :] == extra


@pytest.mark.parametrize("case", CASES)
def test_docker_reads_the_settings_back(rendered: Rendered, cases: Rendered, case: str) -> None:
    found = readers.docker_env_file(rendered[case]["env"])
    given = cases[case]
    assert found["MODEL"] == given["dgx_vllm_model"]
    assert found["PORT"] == str(given.get("dgx_vllm_port", 8000))
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found.get("VLLM_API_KEY") == given.get("dgx_vllm_api_key")
    assert "VLLM_PORT" not in found
    for name, value in given.get("dgx_vllm_extra_env", {}).items():
        assert found[name] == str(value)


@pytest.mark.parametrize("case", CASES)
def test_a_start_is_modest_and_tells_nobody(rendered: Rendered, case: str) -> None:
    """S3: FlashInfer takes all cores without MAX_JOBS. R11: usage statistics are off. R3: caches survive --rm."""
    found = readers.docker_env_file(rendered[case]["env"])
    assert int(found["MAX_JOBS"]) <= 4
    assert (found["VLLM_NO_USAGE_STATS"], found["DO_NOT_TRACK"]) == ("1", "1")
    folders = {
        found[name]
        for name in found
        if name.endswith(("CACHE_PATH", "CACHE_DIR", "CACHE_HOME", "CACHE_ROOT"))
    }
    assert len(folders) == 5
    assert all(folder.startswith("/cache/") for folder in folders)


@pytest.mark.parametrize("case", CASES)
def test_environment_names_no_variable_twice(rendered: Rendered, case: str) -> None:
    lines = [line.split("=")[0] for line in rendered[case]["env"].splitlines() if line]
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("case", CASES)
def test_systemd_runs_just_the_command_that_is_meant(rendered: Rendered, case: str) -> None:
    one = rendered[case]
    (line,) = readers.setting(one["unit"], "ExecStart")
    arguments = [str(argument).replace("@RELEASE@", one["release"]) for argument in one["docker_args"]]
    wanted = ["/usr/bin/docker", "run", "--rm", *arguments, one["image"], *one["command"]]
    assert readers.systemd_words(line) == wanted
    if not readers.systemd_parser():
        assert readers.parsed_by_systemd([line]) == [wanted]


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_in_the_unit(rendered: Rendered, cases: Rendered, specs: Rendered, case: str) -> None:
    options = specs["main"]["options"]
    secrets = [name for name, option in options.items() if option.get("no_log")]
    assert secrets
    for name in secrets:
        value = cases[case].get(name)
        assert not value or value not in rendered[case]["unit"], name
    for name in ("dgx_vllm_hf_token", "dgx_vllm_registry_password"):
        value = cases[case].get(name)
        assert not value or value not in rendered[case]["env"], f"the server does not need {name}"


@pytest.mark.parametrize("case", CASES)
def test_container_is_not_privileged(rendered: Rendered, case: str) -> None:
    arguments = rendered[case]["docker_args"]
    assert "--cap-drop=ALL" in arguments
    assert "--security-opt=no-new-privileges" in arguments
    assert "--privileged" not in " ".join(arguments)
    added = [argument for argument in arguments if argument.startswith("--cap-add")]
    assert added == (["--cap-add=IPC_LOCK"] if case in REPLICAS else [])
    assert [argument for argument in arguments if argument.startswith(("--gpus", "--device=nvidia"))] == [
        "--gpus=all" if case in OLD_DOCKER else "--device=nvidia.com/gpu=all"
    ]


@pytest.mark.parametrize("case", CASES)
def test_stopping_leaves_time_for_vllm(rendered: Rendered, case: str) -> None:
    """systemd must outwait docker stop, or it kills the server while it finishes its requests."""
    unit = rendered[case]["unit"]
    (stop,) = readers.setting(unit, "ExecStop")
    words = stop.rstrip("'").split()
    docker_waits = int(words[words.index("-t") + 1])
    assert int(readers.setting(unit, "TimeoutStopSec")[0]) >= docker_waits + 15


@pytest.mark.parametrize("case", CASES)
def test_requests_may_finish_before_docker_kills_the_server(rendered: Rendered, case: str) -> None:
    """A request that outlasts --shutdown-timeout keeps vLLM for some seconds more."""
    words = readers.setting(rendered[case]["unit"], "ExecStop")[0].rstrip("'").split()
    timeout = int(readers.docker_env_file(rendered[case]["env"])["SHUTDOWN_TIMEOUT"])
    assert 0 < timeout <= int(words[words.index("-t") + 1]) - 15


@pytest.mark.parametrize("setting", ["ExecStartPre", "ExecStop", "ExecStopPost"])
def test_l12_the_unit_touches_only_containers_with_the_roles_label(rendered: Rendered, setting: str) -> None:
    """The container of somebody else that is called dgx-vllm stays."""
    commands = [line for line in readers.setting(rendered["hub"]["unit"], setting) if "docker" in line]
    assert len(commands) == 1
    assert "--filter label=dgx-vllm.release | xargs -r docker" in commands[0]


@pytest.mark.parametrize("case", CASES)
def test_the_unit_waits_before_it_starts(rendered: Rendered, case: str) -> None:
    """B3: the wait fits how the container gets the GPU, and the node's rails; R7: Docker wants the unit."""
    unit = rendered[case]["unit"]
    words = readers.systemd_words(readers.setting(unit, "ExecStartPre")[0])
    options = START.arguments().parse_args(words[2:])
    assert words[:2] == ["/usr/bin/python3", f"/etc/dgx-vllm/releases/{rendered[case]['release']}/start.py"]
    assert (options.verb, options.release) == ("wait", rendered[case]["release"])
    assert options.gpu == ("runtime" if case in OLD_DOCKER else "cdi")
    assert (options.rdma, len(options.address)) == ((True, 2) if case in REPLICAS else (False, 0))
    assert int(readers.setting(unit, "TimeoutStartSec")[0]) > START.LIMIT + 60
    assert "cdi-refresh" not in unit, "with toolkit 1.19.0 an order after it is a cycle"
    assert readers.setting(unit, "WantedBy") == ["multi-user.target docker.service"]


@pytest.mark.parametrize("case", CASES)
def test_the_programs_of_a_start_take_their_arguments(rendered: Rendered, case: str) -> None:
    """B5: a refusal is a skip (ExecCondition); the note of the start is one file for all of them."""
    unit = rendered[case]["unit"]
    lines = [readers.setting(unit, name)[-1] for name in ("ExecCondition", "ExecStartPost", "ExecStopPost")]
    parsed = [START.arguments().parse_args(readers.systemd_words(line.lstrip("-"))[2:]) for line in lines]
    assert [options.verb for options in parsed] == ["check", "ready", "end"]
    assert {str(options.note) for options in parsed} == {"/var/lib/dgx-vllm/state/start.json"}
    assert bool(parsed[1].watch) is (case in REPLICAS)


@pytest.mark.parametrize("case", STANDALONE)
def test_restarts_are_bounded(rendered: Rendered, cases: Rendered, case: str) -> None:
    """B2: an engine that dies ends vLLM with status 0, so every end but an ordered one means a restart."""
    unit = rendered[case]["unit"]
    assert readers.setting(unit, "Restart") == ["always"]
    assert readers.setting(unit, "StartLimitBurst") == [str(cases[case].get("dgx_vllm_restart_limit", 3) + 1)]
    window = int(readers.setting(unit, "StartLimitIntervalSec")[0])
    assert window > int(readers.setting(unit, "RestartSec")[0])


@pytest.mark.parametrize("case", REPLICAS)
def test_a_node_of_a_replica_leaves_restarts_to_its_watch(rendered: Rendered, case: str) -> None:
    one = rendered[case]
    assert readers.setting(one["unit"], "Restart") == ["no"]
    assert one["command"][0] == ("ray" if case == "ray_worker" else "serve")
    watch = json.loads(one["watch"])
    assert watch["api"]["env_file"] == f"/etc/dgx-vllm/releases/{one['release']}/vllm.env"
    (peer,) = watch["peers"]
    assert {case, peer} <= set(REPLICAS)
    assert watch["limits"] == ({"stall": 240.0} if case.startswith("ray") else {})
    assert watch["secret"] == "/etc/dgx-vllm/watch.secret"
    allowed = {
        watch["address"],
        *watch["peers"].values(),
        watch["engine"]["address"],
        watch["api"]["address"],
    }
    assert readers.setting(one["watch_unit"], "IPAddressDeny") == ["any"]
    (line,) = readers.setting(one["watch_unit"], "IPAddressAllow")
    assert line.split()[0] == "localhost"
    assert set(line.split()[1:]) == allowed


def test_a_standalone_node_has_no_watch(rendered: Rendered) -> None:
    assert {rendered[case]["watch"] for case in STANDALONE} == {""}


EXPOSURE = {"dgx-vllm-watch.service": 3.0, "dgx-vllm.service": 9.6}
"""At most, of ten, as `systemd-analyze security` counts; the server's unit runs Docker's client."""


@pytest.mark.parametrize("case", ["pair_head", "ray_worker"])
def test_m18_the_units_have_few_rights(rendered: Rendered, case: str, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if not tool:
        pytest.skip("systemd-analyze is not installed")
    for unit, text in (("dgx-vllm-watch.service", "watch_unit"), ("dgx-vllm.service", "unit")):
        (tmp_path / unit).write_text(rendered[case][text], encoding="utf-8")
        done = subprocess.run(
            [tool, "security", "--offline=true", "--no-pager", str(tmp_path / unit)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        if found is None:
            pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()}")
        assert float(found.group(1)) <= EXPOSURE[unit], done.stdout


@pytest.mark.parametrize("case", CASES)
def test_systemd_analyze_finds_nothing(rendered: Rendered, case: str, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if not tool:
        pytest.skip("systemd-analyze is not installed")
    # The command itself need not be on this machine.
    unit = rendered[case]["unit"].replace("/usr/bin/docker", shutil.which("true") or "/bin/true")
    (tmp_path / "dgx-vllm.service").write_text(unit, encoding="utf-8")
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    done = subprocess.run(
        [tool, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "dgx-vllm.service")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "dgx-vllm.service" not in done.stderr, done.stderr
