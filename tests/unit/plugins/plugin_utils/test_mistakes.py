"""variables.mistakes: each wrong setting gets one sentence that names the variable and says how to fix it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.extra_arguments import OWN_FLAGS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.variables import OWN_ENVIRONMENT, mistakes
from hypothesis import given
from hypothesis import strategies as st

ROLE = Path(__file__).resolve().parents[4] / "roles/dgx_vllm"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
SPECS: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8")
)["argument_specs"]["main"]["options"]
GOOD = {**DEFAULTS, "dgx_vllm_model": "org/name"}


STANDALONE = {"host": "spark1", "replica": "spark1", "world_size": 1, "rails": []}
PAIR = {"host": "spark1", "replica": "chat", "world_size": 2, "rails": [{"rail": 0}, {"rail": 1}]}


def judged(row: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    settings = {**GOOD, **{f"dgx_vllm_{name}": value for name, value in changes.items()}}
    return mistakes(settings, SPECS, row or STANDALONE)


def test_defaults_with_a_model_are_fine() -> None:
    assert judged() == []


def test_model_is_asked_for() -> None:
    assert mistakes(DEFAULTS, SPECS, STANDALONE) == [
        "dgx_vllm_model is not set; write a Hugging Face id (org/name) or the absolute path of a model folder."
    ]


def test_absent_needs_no_model() -> None:
    assert mistakes({**DEFAULTS, "dgx_vllm_state": "absent"}, SPECS, STANDALONE) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "/srv/models/qwen"},
        {"port": "8001", "max_model_len": "4096", "gpu_memory_utilization": "0.5"},
        {"gpu_memory_utilization": 0.9},
        {"image_source": "pull", "image": "registry.example.com:5000/dgx-vllm:0.33.0"},
        {"image_source": "pull", "image": "registry.example.com/dgx-vllm@sha256:" + "0" * 64},
        {"image_source": "load", "image": "dgx-vllm:1", "image_archive": "/srv/dgx-vllm.tar"},
        {"image": "registry.example.com:5000/dgx-vllm"},
        {"registry_username": "u", "registry_password": "p"},
        {"extra_args": ["--kernel-config", '{"a": 1}', "--async-scheduling"]},
        {"extra_env": {"VLLM_LOGGING_LEVEL": "DEBUG", "N": 1, "FLAG": True}},
        {"toolkit_repo_key_fingerprint": "C95B 321B 61E8 8C18 09C4  F759 DDCA E044 F796 ECB0"},
        {"host": "::"},
    ],
)
def test_good_settings(changes: dict[str, Any]) -> None:
    assert judged(**changes) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": 0}, ["dgx_vllm_port is 0", "1 to 65535"]),
        ({"port": 65536}, ["dgx_vllm_port is 65536"]),
        ({"gpu_memory_utilization": 0.95}, ["dgx_vllm_gpu_memory_utilization is 0.95", "0.9", "freezes"]),
        ({"gpu_memory_utilization": 0}, ["dgx_vllm_gpu_memory_utilization is 0;"]),
        (
            {"tensor_parallel_size": 2},
            ["dgx_vllm_tensor_parallel_size (2)", "has one node, which has one GPU"],
        ),
        ({"max_model_len": -1}, ["dgx_vllm_max_model_len is -1"]),
        ({"restart_limit": -1}, ["dgx_vllm_restart_limit is -1"]),
        ({"health_timeout": 0}, ["dgx_vllm_health_timeout is 0"]),
        ({"model": "qwen"}, ["dgx_vllm_model is 'qwen'"]),
        ({"model": "models/org/name"}, ["dgx_vllm_model is 'models/org/name'"]),
        ({"host": "http://0.0.0.0"}, ["dgx_vllm_host"]),
        ({"host": ""}, ["dgx_vllm_host"]),
        ({"image": "dgx-vllm:mine"}, ["dgx_vllm_image", "without a tag"]),
        ({"image": ""}, ["dgx_vllm_image"]),
        ({"image_source": "pull"}, ["dgx_vllm_image is 'dgx-vllm'", "digest"]),
        ({"image_source": "pull", "image": "registry.example.com:5000/dgx-vllm"}, ["dgx_vllm_image is"]),
        ({"image_source": "load", "image": "a:1", "image_archive": "x.tar"}, ["dgx_vllm_image_archive"]),
        ({"registry_username": "u"}, ["dgx_vllm_registry_username", "dgx_vllm_registry_password"]),
        ({"registry_password": "p"}, ["dgx_vllm_registry_username", "dgx_vllm_registry_password"]),
        ({"toolkit_repo_key_fingerprint": "C95B"}, ["dgx_vllm_toolkit_repo_key_fingerprint"]),
        ({"container_extra_args": ["--privileged"]}, ["dgx_vllm_container_extra_args has --privileged"]),
        ({"container_extra_args": ["--privileged=true"]}, ["--privileged"]),
        ({"extra_env": {"1A": "x"}}, ["dgx_vllm_extra_env has '1A'"]),
        ({"extra_env": {"A B": "x"}}, ["dgx_vllm_extra_env has 'A B'"]),
        ({"extra_env": {"VLLM_PORT": "1"}}, ["VLLM_PORT", "dgx_vllm_port"]),
        ({"extra_env": {"A": "x\ny"}}, ["dgx_vllm_extra_env.A has a line break"]),
        ({"extra_args": ["a\nb"]}, ["dgx_vllm_extra_args has a line break"]),
        ({"extra_args": ["--master-addr=192.0.2.1"]}, ["remove it", "playbooks/topology.yml"]),
        ({"extra_args": "--foo bar"}, ["dgx_vllm_extra_args must be a list"]),
        ({"served_model_names": "chat"}, ["dgx_vllm_served_model_names must be a list"]),
        ({"extra_env": "A=1"}, ["dgx_vllm_extra_env must be a dictionary"]),
    ],
)
def test_mistake_gets_one_sentence(changes: dict[str, Any], words: list[str]) -> None:
    found = judged(**changes)
    assert len(found) == 1, found
    assert all(word in found[0] for word in words), found[0]
    assert found[0].endswith(".")


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec["type"] in ("list", "dict")])
def test_text_where_the_specs_want_more_is_refused(name: str) -> None:
    """Ansible's own validation would split the text."""
    kind = {"list": "list", "dict": "dictionary"}[SPECS[name]["type"]]
    (sentence,) = mistakes({**GOOD, name: "a=b"}, SPECS, STANDALONE)
    assert sentence.startswith(f"{name} must be a {kind}; ")


@pytest.mark.parametrize(("flag", "variable"), OWN_FLAGS.items())
@pytest.mark.parametrize("form", ["{}", "{}=1"])
def test_flag_that_a_variable_sets_is_refused(flag: str, variable: str, form: str) -> None:
    assert judged(extra_args=[form.format(flag)]) == [
        f"dgx_vllm_extra_args has {flag}; set dgx_vllm_{variable} instead."
    ]
    assert f"dgx_vllm_{variable}" in DEFAULTS


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (["--max_model_len", "1"], "max_model_len"),
        (["--served_model_name=x"], "served_model_names"),
        (["-tp", "2"], "tensor_parallel_size"),
        (["-tp=2"], "tensor_parallel_size"),
        (["-pp", "2"], "pipeline_parallel_size"),
        (["-n", "2"], "replica"),
        (["-r0"], "rank"),
        (["--headl"], "rank"),
        (["--gpu-mem", "0.9"], "gpu_memory_utilization"),
        (["--device-memory-utilization=0.9"], "gpu_memory_utilization"),
        (["--api-k", "x"], "api_key"),
        (["--seed", "1", "--hf-tok=x"], "hf_token"),
    ],
)
def test_class_f_every_form_that_vllm_takes_is_refused(words: list[str], variable: str) -> None:
    """Short forms, underscores, other names and beginnings of a name."""
    (sentence,) = judged(extra_args=words)
    assert sentence.endswith(f"; set dgx_vllm_{variable} instead.")


@pytest.mark.parametrize(
    ("words", "because"),
    [
        (["--uds", "/run/x"], "dgx_vllm_port"),
        (["--grpc"], "dgx_vllm_port"),
        (["--ssl-certf", "/c"], "without TLS"),
        (["-dp", "2"], "one GPU per node"),
        (["--data-parallel-size=4"], "one GPU per node"),
        (["--seed 1"], "--seed and its value in one item"),
        (["--master_addr", "192.0.2.1"], "playbooks/topology.yml"),
    ],
)
def test_class_f_what_cannot_work_here_is_refused(words: list[str], because: str) -> None:
    (sentence,) = judged(extra_args=words)
    assert because in sentence


@pytest.mark.parametrize(
    "words",
    [
        ["-q", "fp8", "-ep", "-O3"],
        ["-dp", "1"],
        ["-sc.model", "org/draft", "-sc.num_speculative_tokens", "3"],
        ['--override-generation-config={"temperature": 0.1}'],
        ["--chat-template", "{{ a b }} --port"],
        ["--option-of-another-vllm", "x y", "--no-grpc"],
    ],
)
def test_class_f_other_arguments_are_left_alone(words: list[str]) -> None:
    assert judged(extra_args=words) == []


@pytest.mark.parametrize(("name", "variable"), OWN_ENVIRONMENT.items())
def test_environment_that_a_variable_sets_is_refused(name: str, variable: str) -> None:
    assert judged(extra_env={name: "x"}) == [
        f"dgx_vllm_extra_env has {name}; set dgx_vllm_{variable} instead."
    ]
    assert f"dgx_vllm_{variable}" in DEFAULTS


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_OFFLINE", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR"])
def test_environment_that_the_template_sets_is_not_set_twice(name: str) -> None:
    """The environment file would have two lines of that name, and the later one would win unseen."""
    assert len(judged(extra_env={name: "x"})) == 1


SECRETS = ("api_key", "hf_token", "registry_password")


@given(
    st.sampled_from(SECRETS), st.text("abcdef0123456789", min_size=12), st.sampled_from(["", "\n", "\r\n"])
)
def test_no_sentence_repeats_a_secret(name: str, secret: str, end: str) -> None:
    found = judged(**{name: secret + end}, registry_username="", port=0)
    assert found
    assert all(secret not in sentence for sentence in found)


@pytest.mark.parametrize(
    "name", ["served_model_names", "tool_call_parser", "tuned_config_dir", "container_extra_args"]
)
def test_line_break_is_refused_wherever_it_would_break_a_file(name: str) -> None:
    """All of these end up on a line of the unit or of the environment file."""
    value = ["a\nb"] if isinstance(DEFAULTS[f"dgx_vllm_{name}"], list) else "/a\nB=c"
    assert judged(**{name: value})


@pytest.mark.parametrize("name", ["models_dir", "cache_dir", "tuned_config_dir", "model"])
@pytest.mark.parametrize("path", ["/srv/a:b", "relative/path", "/srv/a\nb"])
def test_folder_that_docker_could_not_mount_is_refused(name: str, path: str) -> None:
    """--volume=FROM:TO:ro is split at its colons, and a relative FROM is the name of a volume."""
    if name == "model" and path == "relative/path":
        pytest.skip("a model's id on the hub looks like this")
    assert judged(**{name: path})


def test_a_pair_with_tensor_or_pipeline_parallelism() -> None:
    assert judged(PAIR, replica="chat", tensor_parallel_size=2) == []
    assert judged(PAIR, replica="chat", pipeline_parallel_size=2) == []
    (sentence,) = judged(PAIR, replica="chat", tensor_parallel_size=2, pipeline_parallel_size=2)
    assert "is 4, but the replica chat has 2 nodes" in sentence


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_each_rail_has_one_interface(names: list[str]) -> None:
    given = {"replica": "chat", "tensor_parallel_size": 2}
    (sentence,) = judged(PAIR, fabric_interfaces=names, **given)
    assert sentence.startswith(
        f"dgx_vllm_fabric_interfaces names {', '.join(names)} on spark1; name 2 different"
    )
    assert judged(PAIR, fabric_interfaces=["a", "b"], **given) == []
    assert judged(fabric_interfaces=names) == []


def test_a_replica_that_only_the_play_knows_is_refused() -> None:
    (sentence,) = judged(STANDALONE, replica="chat", tensor_parallel_size=2)
    assert "dgx_vllm_replica is 'chat' on spark1, but not in the inventory" in sentence


def test_unknown_limits_and_thresholds_are_refused() -> None:
    assert judged(watch_limits={"stall": 240}, fabric_thresholds={"rdma": False, "rail_gbits": "85.5"}) == []
    (sentence,) = judged(watch_limits={"stal": 1})
    assert sentence.startswith(
        "dgx_vllm_watch_limits has stal, which does not exist; did you mean stall? Known are peer_grace"
    )
    (sentence,) = judged(fabric_thresholds={"mut": 9000})
    assert sentence.startswith(
        "dgx_vllm_fabric_thresholds has mut, which does not exist; did you mean mtu? Known"
    )
    (sentence,) = judged(watch_limits={"stall": "soon"})
    assert "dgx_vllm_watch_limits.stall is 'soon'" in sentence


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (
            {"models_dir": "/var/lib/dgx-vllm/cache/hf"},
            "inside /var/lib/dgx-vllm/cache, which uninstall removes",
        ),
        ({"models_dir": "/var/lib/dgx-vllm/tuning/x"}, "inside /var/lib/dgx-vllm/tuning"),
        ({"models_dir": "/var/lib/dgx-vllm/models/../state"}, "inside /var/lib/dgx-vllm/state"),
        ({"tuned_config_dir": "/etc/dgx-vllm/tuned"}, "inside /etc/dgx-vllm"),
        (
            {"cache_dir": "/srv/c", "models_dir": "/srv/c/models"},
            r"lies inside dgx_vllm_cache_dir \(/srv/c\)",
        ),
        ({"cache_dir": "/srv/c", "model": "/srv/c/m"}, "dgx_vllm_model .* lies inside dgx_vllm_cache_dir"),
        ({"models_dir": "/", "cache_dir": "/srv/c"}, "dgx_vllm_cache_dir .* lies inside dgx_vllm_models_dir"),
    ],
)
def test_folders_inside_each_other_are_refused(folders: dict[str, str], sentence: str) -> None:
    assert any(re.search(sentence, mistake) for mistake in judged(**folders))


@pytest.mark.parametrize(
    "folders",
    [
        {"models_dir": "/srv/models", "model": "/srv/models/my-model"},
        {"models_dir": "/srv/models", "cache_dir": "/srv/models-cache", "tuned_config_dir": "/srv/tuned"},
        {"tuned_config_dir": "/var/lib/dgx-vllm/tuned"},
    ],
)
def test_folders_beside_each_other_are_taken(folders: dict[str, str]) -> None:
    assert judged(**folders) == []


@pytest.mark.parametrize(
    "reader", ["gateway", "192.0.2.1/24", "2001:db8::1", "", "192.0.2.1 0.0.0.0/0", "192.0.2"]
)
def test_m4_a_reader_of_the_watch_is_an_address(reader: str) -> None:
    (sentence,) = judged(PAIR, tensor_parallel_size=2, replica="chat", watch_readers=["192.0.2.7", reader])
    assert sentence == (
        f"dgx_vllm_watch_readers has the item {reader!r}; write an IPv4 address or a whole network, as 192.0.2.7 or "
        "192.0.2.0/28."
    )


@pytest.mark.parametrize("wrong", ["192.0.2.0/33", "the office", "", 7.5])
def test_sources_of_the_firewall_are_networks(wrong: Any) -> None:
    (sentence,) = judged(firewall_api_from=["192.0.2.0/24", "2001:db8::1", wrong])
    assert sentence.startswith(f"dgx_vllm_firewall_api_from has the item {wrong!r}; write a network")


@pytest.mark.parametrize("on", [True, "yes"])
def test_a_firewall_that_lets_no_client_in_is_a_mistake(on: Any) -> None:
    (sentence,) = judged(firewall=on, host="0.0.0.0")
    assert "nobody may reach the API" in sentence
    assert judged(firewall=on, host="0.0.0.0", firewall_api_from=["0.0.0.0/0"]) == []
    assert judged(firewall=on) == [], "the default address is loopback"
    assert judged(firewall="no", host="0.0.0.0") == []
    worker = {**PAIR, "is_head": False}
    assert judged(worker, firewall=on, host="0.0.0.0", replica="chat", tensor_parallel_size=2) == []
