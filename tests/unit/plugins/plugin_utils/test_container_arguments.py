"""dgx_vllm_container_extra_args in Docker's grammar: what breaks the unit, and what opens the host to the container."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.container_arguments import (
    REFUSED,
    SHORT,
    SWITCHES,
    VALUES,
    mistakes,
    read,
    weakening,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import accepting
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.server import fabric_prefix, isolation


def test_options_are_a_switch_or_take_a_value() -> None:
    assert not SWITCHES & VALUES
    assert {*SHORT.values(), *REFUSED} <= SWITCHES | VALUES


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["-d"], "-d"),
        (["--detach"], "--detach"),
        (["--detach=true"], "--detach"),
        (["-dit"], "-d"),
        (["-itd"], "-d"),
        (["--name=other"], "--name"),
        (["--name", "other"], "--name"),
        (["--rm"], "--rm"),
        (["--restart=always"], "--restart"),
        (["--pull", "always"], "--pull"),
        (["--cidfile=/run/x"], "--cidfile"),
        (["-e", "VLLM_API_KEY=x"], "-e"),
        (["-eVLLM_API_KEY=x"], "-e"),
        (["-e=VLLM_API_KEY=x"], "-e"),
        (["--env=HF_TOKEN=x"], "--env"),
        (["--env-file", "/etc/x"], "--env-file"),
        (["--entrypoint", "bash"], "--entrypoint"),
        (["--network=bridge"], "--network"),
        (["--net", "none"], "--net"),
        (["--log-driver=journald"], "--log-driver"),
        (["--privileged"], "--privileged"),
        (["--privileged=t"], "--privileged"),
        (["-m", "10g"], "-m"),
        (["--volume=/srv/x:/models"], "--volume"),
        (["--mount", "type=bind,src=/srv/x,dst=/cache"], "--mount"),
    ],
)
def test_l15_what_breaks_the_unit_is_refused(words: list[str], written: str) -> None:
    found = [*mistakes(words)]
    assert any(f" has {written}; " in sentence for sentence in found), found
    assert all(sentence.endswith(".") and "VLLM_API_KEY" not in sentence for sentence in found)


@pytest.mark.parametrize(
    ("words", "because"),
    [
        (["--"], "take it or the next word for the image"),
        (["other/image"], "take it or the next word for the image"),
        (["--cap-add", "SYS_ADMIN", "bash"], "take it or the next word for the image"),
        (["--rm-nothing", "x"], "write --rm-nothing=VALUE in one item"),
        (["--label=a=b", "--volume"], "would take the image for its value"),
        (["-v"], "would take the image for its value"),
        (["-Z"], "which docker run does not have"),
        (["--=x"], "not an option of docker run"),
        (["---x"], "not an option of docker run"),
    ],
)
def test_l15_words_that_are_read_otherwise_than_meant(words: list[str], because: str) -> None:
    (sentence,) = mistakes(words)
    assert because in sentence


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--label=owner=Team A", "--device=/dev/infiniband"],
        ["--volume", "/srv/data:/data:ro", "-v/srv/b:/b", "--network=host"],
        ["--cpus", 4, "--tty=false", "--log-driver=local"],
        ["--mount=type=bind,source=/srv/x,target=/x,readonly"],
        ["--option-of-tomorrow=1"],
    ],
)
def test_l15_other_options_are_left_alone(words: list[Any]) -> None:
    assert [*mistakes(words)] == []


@pytest.mark.parametrize(
    "words",
    [
        ["--cap-add=ALL"],
        ["--cap-add", "SYS_ADMIN"],
        ["--pid=host"],
        ["--pid", "container:other"],
        ["--ipc=host"],
        ["--userns=host"],
        ["--uts=host"],
        ["--security-opt=seccomp=unconfined"],
        ["--security-opt", "no-new-privileges=false"],
        ["--device=/dev/nvme0n1"],
        ["--device=/dev/mem"],
        ["--device-cgroup-rule=a *:* rwm"],
        ["--volume=/:/host"],
        ["--volume=//:/host:ro"],
        ["-v/var/run/docker.sock:/s"],
        ["-v", "/run/docker.sock:/s:ro"],
        ["-v/srv/../etc:/x"],
        ["-v/var:/x:ro"],
        ["-v/var/lib/docker:/x"],
        ["-v/proc/1/root:/x"],
        ["-v/etc/cron.d:/x"],
        ["--mount=type=bind,source=/,target=/host"],
        ["--mount", "type=volume,volume-opt=device=/,target=/host"],
        ["--volumes-from=other"],
        ["--use-api-socket"],
        ["--option-of-tomorrow=1"],
    ],
)
def test_l15_what_opens_the_host_has_to_be_accepted(words: list[str]) -> None:
    assert [*mistakes(words)] == []
    assert weakening(words)
    check = Check("spark1", "isolation")
    found = isolation(check, {}, {"container_extra_args": words})
    assert (found.status, found.check) == ("fail", "isolation")
    assert "dgx_vllm_preflight_accept" in found.remedy
    (accepted,) = accepting([found], {"accept": ["isolation"]})
    assert accepted.status == "warn"


@pytest.mark.parametrize(
    "words",
    [
        ["--ipc=private", "--security-opt=no-new-privileges", "--device=nvidia.com/gpu=all"],
        ["--device=/dev/infiniband", "-v/dev/shm:/dev/shm", "-v/etc/localtime:/etc/localtime:ro"],
        ["-v", "name:/data", "--mount=type=volume,source=name,target=/x"],
        ["-v/srv/plugins:/plugins:ro", "-v/var/log/vllm:/logs", "--oom-kill-disable=false"],
    ],
)
def test_l15_what_keeps_the_host_closed_passes(words: list[str]) -> None:
    assert weakening(words) == []
    assert isolation(Check("spark1", "isolation"), {}, {"container_extra_args": words}).status == "pass"


def test_l15_clusters_and_values() -> None:
    found, problems = read(["-itw", "/x", "-u=1000", "--label", "a"])
    assert problems == []
    assert [(one.name, one.value) for one in found] == [
        ("interactive", None),
        ("tty", None),
        ("workdir", "/x"),
        ("user", "1000"),
        ("label", "a"),
    ]


@pytest.mark.parametrize(
    ("rails", "status"),
    [
        ([], "pass"),
        (["10.0.0.1/26", "100.64.0.1/26", "169.254.1.1/24", "203.0.113.1/26"], "pass"),
        (["10.0.0.1/26", "8.8.8.1/26"], "fail"),
        (["172.32.0.1/24"], "fail"),
    ],
)
def test_m10_rails_in_networks_of_others_have_to_be_accepted(rails: list[str], status: str) -> None:
    found = fabric_prefix(Check("spark1", "fabric_prefix"), {}, {"rails": rails})
    assert found.status == status
    (judged,) = accepting([found], {"accept": ["fabric_prefix"]})
    assert judged.status in ("pass", "warn")
