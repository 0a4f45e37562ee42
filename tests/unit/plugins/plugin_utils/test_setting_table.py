"""The table of the variables: every wrong value is a sentence, and what is accepted arrives in the container."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import entrypoint
import pytest
import setting_kinds
import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import kinds
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import setting_table as table
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import THRESHOLDS, limits_from
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.vllm import arguments, environment
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.variables import mistakes
from jinja2 import Environment
from replica_watch.model import Settings as WatchSettings

from helpers.ansible_run import ROOT
from helpers.fleets import replica
from helpers.readers import docker_env_file

ROLE = ROOT / "roles/dgx_vllm"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
SPECS: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8")
)["argument_specs"]["main"]["options"]
GOOD = {**DEFAULTS, "dgx_vllm_model": "org/name"}
ALONE = {
    "host": "spark1", "replica": "spark1", "world_size": 1, "rails": [], "pipeline_parallel_size": 1,
}  # fmt: skip
SECRETS = [name for name, spec in SPECS.items() if spec.get("no_log")]


class Marker:
    """What a template that failed leaves in ansible-core 2.19."""


UNWRITABLE = (
    "a\nb", "a\rb", "\0", "a\0b", "\x1b[31m", "\x7f", "\x85", "a\u2028b", "\ud800", "a\udfff", "/srv/\udc80",
    "x" * 40000,
)  # fmt: skip
STRANGE: list[Any] = [
    *UNWRITABLE, None, Marker(), b"bytes", 1 + 2j, {1, 2}, object(), ["a\0"], ["\ud800"], [None], [[1]], [{}],
    [Marker()],
    {"A": "x\0"}, {"A": "\ud800"}, {"A\n": "x"}, {1: "x"}, {None: "x"}, {"A": [1]}, {"A": Marker()}, math.nan, math.inf,
    -math.inf, 10**5000, -(10**5000),
]  # fmt: skip
"""Wrong for every variable."""
SUSPECT: list[Any] = [
    "", " ", "\t", " a", "a ", "²", "١", "8_000", "8e-1", "1e5", "0x10", "+1", "-1", "-x/y", "nan", "inf", "-inf",
    "NaN", "a\\", "/srv/m\\",
    "[::]", "[::1]", "a b", "%", "$(id)", "`id`", "'", '"', "{{ x }}", "..", "/", "~", "http://[", 0, -1, 1, 7, 2**31,
    2**63, 1.5, -0.0,
    1e308, 0.1, True, False, [], {}, [""], [1], ["-x"], [True], {"": ""}, {"A": None}, {"A": True}, {"A": ""}, "True",
    "yes",
]  # fmt: skip
"""Wrong for most of them: a sentence or nothing, never a traceback."""


def judged(**changes: Any) -> list[str]:
    return mistakes({**GOOD, **{f"dgx_vllm_{name}": value for name, value in changes.items()}}, SPECS, ALONE)


def is_sentence(text: str) -> bool:
    named = text[0].isupper() or text.startswith("dgx_vllm_")
    return named and text.endswith(".") and text.isprintable()


def test_the_entry_point_has_the_same_kinds() -> None:
    assert Path(str(kinds.__file__)).resolve() == Path(str(setting_kinds.__file__)).resolve()


def test_every_public_variable_is_in_the_table() -> None:
    names = [f"dgx_vllm_{name}" for name in table.TABLE]
    assert names == list(DEFAULTS) == list(SPECS)
    for name, spec in SPECS.items():
        kind = table.TABLE[name.removeprefix("dgx_vllm_")]
        assert kind.type == spec["type"], name
        assert list(kind.choices) == spec.get("choices", []), name
        assert kind.type != "list" or (kind.of is not None and kind.of.type == spec["elements"]), name


def test_limits_are_those_of_the_code_and_their_defaults_are_sensible() -> None:
    assert set(table.THRESHOLDS) == set(THRESHOLDS)
    for name, value in THRESHOLDS.items():
        assert kinds.fits(table.THRESHOLDS[name], value), name
    watch = WatchSettings(host="a", rank=0, peers=(), head="a")
    for name, kind in table.WATCH_LIMITS.items():
        assert kinds.fits(kind, getattr(watch, name)) or kind.type == "int", name
        assert kinds.fits(kind, int(getattr(watch, name))), name


@pytest.mark.parametrize("name", table.TABLE)
def test_every_wrong_value_is_a_sentence(name: str) -> None:
    for value in STRANGE:
        found = judged(**{name: value})
        assert found, (name, repr(value)[:80] if not isinstance(value, int) else "huge")
        assert all(is_sentence(one) and f"dgx_vllm_{name}" in one for one in found), found
    for value in SUSPECT:
        assert all(is_sentence(one) for one in judged(**{name: value})), (name, value)


@pytest.mark.parametrize("name", table.TABLE)
def test_texts_of_numbers_and_switches_have_one_grammar(name: str) -> None:
    kind = table.TABLE[name]
    if kind.type not in ("int", "float", "bool"):
        return
    for value in ("", " ", "²", "١", "8_000", "8e-1", "0x1", "+1", "nan", "inf", "1 ", "one", [], {}, [1]):
        assert judged(**{name: value}), (name, value)
    if kind.type != "bool":
        for value in (True, False, kind.high + 1, 1e308):
            assert judged(**{name: value}), (name, value)


@pytest.mark.parametrize("name", SECRETS)
def test_l7_no_sentence_shows_a_secret_of_another_type(name: str) -> None:
    for value in (12345678, ["12345678"], {"A": "12345678"}, "12345678\n", "\x0012345678"):
        found = mistakes({**GOOD, name: value}, SPECS, ALONE)
        assert found and "12345678" not in " ".join(found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": 7}, "dgx_vllm_model is 7, a number, so write it in quotes"),
        ({"host": None}, "dgx_vllm_host has no value; set it to an address"),
        ({"api_key": 12345678}, "dgx_vllm_api_key is not of the right form, a number, so write it in quotes"),
        ({"api_key": None}, "dgx_vllm_api_key has no value"),
        ({"api_key": " "}, "dgx_vllm_api_key begins or ends with a space"),
        ({"replica": 1}, "dgx_vllm_replica is 1, a number, so write it in quotes"),
        ({"port": True}, "dgx_vllm_port is True, which is yes or no; set it to a port"),
        ({"model": Marker()}, "dgx_vllm_model cannot be read, because its template failed"),
        ({"extra_args": ["a", Marker()]}, "dgx_vllm_extra_args has the item Marker"),
        ({"host": ["a"]}, "dgx_vllm_host is a list"),
    ],
)
def test_l7_types_come_first(changes: dict[str, Any], words: str) -> None:
    (sentence,) = judged(**changes)
    assert sentence.startswith(words)


@pytest.mark.parametrize("name", ["model", "models_dir", "cache_dir", "tuned_config_dir"])
def test_l5_no_backslash_joins_two_lines_of_the_unit(name: str) -> None:
    (sentence,) = judged(**{name: "/srv/m\\"})
    assert "ends with a backslash" in sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"extra_args": ["a\0"]},
        {"extra_env": {"A": "\0"}},
        {"model_environment": {"A": "\ud800"}},
        {"served_model_names": ["\x1b"]},
    ],
)
def test_l5_no_control_character_anywhere(changes: dict[str, Any]) -> None:
    (sentence,) = judged(**changes)
    assert "control character" in sentence


ONE_GRAMMAR = {
    "host": "HOST",
    "port": "PORT",
    "gpu_memory_utilization": "GPU_MEMORY_UTIL",
    "max_num_seqs": "MAX_NUM_SEQS",
}


def refused_by_the_entry_point(name: str, value: str) -> bool:
    try:
        entrypoint.serve_command([], {"MODEL": "m", name: value}, (0, 33))
    except entrypoint.Refused as refusal:
        assert is_sentence(str(refusal)) or "is not" in str(refusal)
        return True
    return False


@pytest.mark.parametrize("name", ONE_GRAMMAR)
def test_l6_role_and_entry_point_have_one_grammar(name: str) -> None:
    values = (
        "[::] [::1] :: ::1 fe80::1%eth0 8e-1 8_000 0.8 .5 0.90 1000001 1000000 8000 ² １ 0 -1 localhost spark1.lan "
        "300.1.1.1 127.1 -x a..b 0.0.0.0 é 1 70000"
    )
    for value in ["a b", *values.split()]:
        ours = bool(judged(**{name: value}))
        theirs = refused_by_the_entry_point(ONE_GRAMMAR[name], value)
        if (name, value) in (("max_num_seqs", "0"), ("gpu_memory_utilization", "1")):
            continue  # the role leaves it out, and the role's limit is lower
        assert ours == theirs, (name, value)


@pytest.mark.parametrize("model", ["-x/y", "--help", "-"])
def test_l6_a_model_is_not_an_option(model: str) -> None:
    assert judged(model=model)
    assert refused_by_the_entry_point("MODEL", model)


@pytest.mark.parametrize(
    "changes",
    [
        {"watch_limits": {"stall": True}},
        {"watch_limits": {"stall": 0}},
        {"watch_limits": {"stall": "yes"}},
        {"watch_limits": {"peer_grace": 0}},
        {"watch_limits": {"start_timeout": 1}},
        {"watch_limits": {"probe_failures": 1.5}},
        {"watch_limits": {"stall": None}},
        {"watch_limits": {"stall": math.nan}},
        {"fabric_thresholds": {"mtu": "yes"}},
        {"fabric_thresholds": {"mtu": "9000.5"}},
        {"fabric_thresholds": {"mtu": 10}},
        {"fabric_thresholds": {"rdma": 5}},
        {"fabric_thresholds": {"rail_gbits": -1}},
        {"ray_port": 65530},
    ],
)
def test_m10_a_limit_has_a_type_and_a_range(changes: dict[str, Any]) -> None:
    (sentence,) = judged(**changes)
    name = next(iter(changes))
    inner = changes[name]
    assert sentence.startswith(
        f"dgx_vllm_{name}" + (f".{next(iter(inner))} " if isinstance(inner, dict) else " ")
    )


@pytest.mark.parametrize(
    "limits", [{"mtu": "9000"}, {"rdma": "no"}, {"rail_gbits": 0.01}, {"speed_mbit": 10000}]
)
def test_m10_what_the_table_takes_the_gate_reads(limits: dict[str, Any]) -> None:
    assert judged(fabric_thresholds=limits) == []
    assert limits_from(limits)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"fabric_prefix": "0.0.0.0/0"}, "larger than a /8"),
        ({"fabric_prefix": "127.0.0.0/8"}, "loopback, multicast or reserved"),
        ({"fabric_prefix": "224.0.0.0/8"}, "loopback, multicast or reserved"),
        ({"fabric_prefix": "240.0.0.0/8"}, "loopback, multicast or reserved"),
        ({"fabric_prefix": "0.0.0.0/8"}, "loopback, multicast or reserved"),
        ({"fabric_index": 4_000_000}, "below 62, which 198.51.100.0/24 has room for"),
        ({"fabric_index": 10**40}, "more than 30 digits"),
        ({"fabric_index": "²"}, "dgx_vllm_fabric_index is '²'"),
        ({"fabric_prefix": "", "fabric_addresses": ["127.0.0.1/26"]}, "loopback, multicast or reserved"),
        ({"fabric_prefix": "", "fabric_addresses": ["10.0.0.1/4"]}, "larger than a /8"),
        ({"fabric_prefix": "", "fabric_addresses": [10**5000]}, "more than 30 digits"),
        ({"ray_port": 65530, "executor": "ray"}, "dgx_vllm_ray_port is 65530"),
        ({"port": "８０"}, "dgx_vllm_port is"),
    ],
)
def test_m10_a_plan_that_cannot_work_is_refused(more: dict[str, Any], words: str) -> None:
    found = plan(replica(2, **more))["mistakes"]
    assert any(words in sentence for sentence in found), found
    assert not any("/-" in sentence for sentence in found), found


@pytest.mark.parametrize("name", table.TABLE)
def test_m10_the_plan_never_ends_in_a_traceback(name: str) -> None:
    for value in [*STRANGE, *SUSPECT]:
        planned = plan(replica(2, **{name: value}))
        assert all(isinstance(sentence, str) for sentence in planned["mistakes"])


def test_m10_a_host_with_an_odd_name_is_planned() -> None:
    for host in ("²", "a²", None, 7, "9" * 5000):
        assert plan({host: {}, "spark1": {}})["hosts"]


TEMPLATE = Environment(trim_blocks=True, keep_trailing_newline=True, autoescape=False).from_string(
    (ROLE / "templates/vllm.env.j2").read_text(encoding="utf-8")
)
ARRIVES = {
    "host": ("--host", ["::", "0.0.0.0", "spark1.lan", "fe80::1%eth0"]),
    "port": ("--port", [1, "8000", 65535]),
    "tensor_parallel_size": ("--tensor-parallel-size", [1, "1"]),
    "gpu_memory_utilization": ("--gpu-memory-utilization", [0.8, "0.5", ".5", 0.1 + 0.2]),
    "max_model_len": ("--max-model-len", [1, "4096", 1_000_000_000]),
    "max_num_seqs": ("--max-num-seqs", [1, "1000000"]),
    "kv_cache_dtype": ("--kv-cache-dtype", ["fp8", "fp8_e5m2"]),
    "model_revision": ("--revision", ["main", "refs/pr/1", "v1.0+x", "a'b", "$x"]),
    "reasoning_parser": ("--reasoning-parser", ["qwen3"]),
}


def started(**changes: Any) -> tuple[list[str], dict[str, str]]:
    """Arguments of vLLM and environment of the container, by the real template, Docker's reader and the entry point."""
    settings = {**GOOD, **{f"dgx_vllm_{name}": value for name, value in changes.items()}}
    assert mistakes(settings, SPECS, ALONE) == []
    node = {"served_names": ["name"], "commit": ""}
    pairs = environment(settings, arguments(settings, ALONE, node), {})
    env = docker_env_file(TEMPLATE.render(__dgx_vllm_server={"env": pairs}))
    assert env == {name: str(value) for name, value in pairs}
    return entrypoint.serve_command([], dict(env), (0, 33)), env


@pytest.mark.parametrize("name", ARRIVES)
def test_accepted_values_arrive_unchanged(name: str) -> None:
    flag, values = ARRIVES[name]
    for value in values:
        argv, _ = started(**{name: value})
        assert argv[argv.index(flag) + 1] == str(value)


@pytest.mark.parametrize("text", [value for value in SUSPECT if isinstance(value, str) and "\t" not in value])
def test_accepted_texts_arrive_unchanged(text: str) -> None:
    if not judged(extra_args=["--chat-template", text]):
        assert started(extra_args=["--chat-template", text])[0][-2:] == ["--chat-template", text]
    if not judged(extra_env={"OTHER": text}):
        assert started(extra_env={"OTHER": text})[1]["OTHER"] == text
    for name in ("model", "api_key"):
        if judged(**{name: text}):
            continue
        argv, env = started(**{name: text})
        assert argv[2] == text if name == "model" else env.get("VLLM_API_KEY", "") == text
