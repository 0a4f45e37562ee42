"""Class F: one reader of vLLM's arguments, and the table of options taken from vLLM's own sources."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import option_table
import pytest
import serve_arguments
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import arguments as linked
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import options as serve_options

from helpers import images, vllm_sources

LOCK = vllm_sources.IMAGE / "locks" / "vllm.txt"
LOCKED = serve_arguments.Grammar(serve_options.OPTIONS)
BARE = serve_arguments.Grammar("")


def given(text: str, grammar: serve_arguments.Grammar = LOCKED) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(one.name, one.values, one.on) for one in grammar.read(serve_arguments.split_words(text))]


def test_the_table_is_that_of_the_locked_vllm() -> None:
    found = re.search(r"^vllm==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert found and found[1] == serve_options.VERSION, "run scripts/serve-options"
    assert option_table.read(vllm_sources.fetch(serve_options.VERSION)) == serve_options.OPTIONS


def test_image_and_collection_have_the_same_reader() -> None:
    assert Path(linked.__file__).resolve() == Path(serve_arguments.__file__).resolve()


@pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))
def test_every_release_gives_a_table(version: str) -> None:
    """Every option name that the release's own sources write out is in it."""
    root = vllm_sources.fetch(version)
    table = option_table.read(root)
    names = {name for line in table.splitlines() for name in line.split()[:-1]}
    source = (root / "vllm/engine/arg_utils.py").read_text()
    written = {
        name.replace("_", "-") for name in re.findall(r'^ +"(--[a-z][\w-]+)",?$', source, re.MULTILINE)
    }
    assert written <= names and len(names) > 200
    for line in (
        "--tensor-parallel-size -tp 1",
        "--headless 0",
        "--api-key +",
        "--config 1",
        "--served-model-name +",
    ):
        assert line in table.splitlines()


@pytest.mark.testbed
@pytest.mark.slow
def test_the_table_is_what_the_real_parser_says() -> None:
    """vLLM's CPU build as released: its own argparse parser against the table read from its sources."""
    script = "import json, option_table, pathlib; import importlib.util as u"
    script += '; root = pathlib.Path(u.find_spec("vllm").origin).parents[1]'
    script += '; pathlib.Path("/tmp/table.json").write_text(json.dumps(option_table.read(root)))'
    answer = images.result_of(images.vllm_cpu(), f"python3 -B -c {shlex.quote(script)}", "real_options.py")
    table = json.loads(answer["table"])
    rows: dict[tuple[str, ...], str] = {}
    for line in table.splitlines():
        *names, words = line.split()
        off = [one for name in names for one in serve_arguments.off_names(name, words)]
        rows[tuple(sorted([*names, *(f"!{one}" for one in off)]))] = "0" if words in ("no", "pair") else words
    assert rows == {tuple(row["names"]): row["words"] for row in answer["options"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-tp 2", [("--tensor-parallel-size", ("2",), True)]),
        ("-pp=3", [("--pipeline-parallel-size", ("3",), True)]),
        ("-r0", [("--node-rank", ("0",), True)]),
        ("-n 2 -q fp8", [("--nnodes", ("2",), True), ("--quantization", ("fp8",), True)]),
        ("-ep --seed 1", [("--enable-expert-parallel", (), True), ("--seed", ("1",), True)]),
        (
            "-dp 2 -dpl 1",
            [("--data-parallel-size", ("2",), True), ("--data-parallel-size-local", ("1",), True)],
        ),
        ("--tensor_parallel_size=2", [("--tensor-parallel-size", ("2",), True)]),
        ("--tensor-par 2", [("--tensor-parallel-size", ("2",), True)]),
        ("--no-enable-prefix-caching", [("--enable-prefix-caching", (), False)]),
        ("--disable-prefix-caching", [("--enable-prefix-caching", (), False)]),
        ("--max-model-len -1", [("--max-model-len", ("-1",), True)]),
        ("--api-key a b --headless", [("--api-key", ("a", "b"), True), ("--headless", (), True)]),
        ("--hf-token --headless", [("--hf-token", (), True), ("--headless", (), True)]),
        ("-O3", [("--optimization-level", ("3",), True)]),
        ("-O 2", [("--optimization-level", ("2",), True)]),
        ('--hf-overrides {"a": [1, 2]}', [("--hf-overrides", ('{"a": [1, 2]}',), True)]),
        ("--served-model-name 'a b' c", [("--served-model-name", ("a b", "c"), True)]),
        ("--new-flag 1 word", [("--new-flag", ("1",), True), ("", ("word",), True)]),
        ("--seed 1 -- --seed 2", [("--seed", ("1",), True), ("", ("--seed",), True), ("", ("2",), True)]),
    ],
)
def test_the_forms_that_vllm_takes(text: str, expected: list[tuple[str, tuple[str, ...], bool]]) -> None:
    assert given(text) == expected


def test_without_a_table_options_are_read_by_their_looks() -> None:
    assert given("--host=h --port 9 --headless -tp 2", BARE) == [
        ("--host", ("h",), True), ("--port", ("9",), True), ("--headless", (), True), ("-tp", ("2",), True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('--speculative-config \'{"model": "org/draft"}\'', {"model": "org/draft"}),
        ('-sc={"model": "org/draft"}', {"model": "org/draft"}),
        (
            "-sc.model org/draft -sc.num_speculative_tokens 3",
            {"model": "org/draft", "num_speculative_tokens": 3},
        ),
        ("--speculative_config.a.b=1 --speculative-config.a.c x", {"a": {"b": 1, "c": "x"}}),
        ("--speculative-config.a+ x,y", {"a": ["x", "y"]}),
        ('-sc.model org/draft -sc \'{"model": "other"}\'', {"model": "org/draft"}),
        ("--speculative-config 'no json'", None),
        ("--seed 1", None),
    ],
)
def test_json_whole_and_by_keys(text: str, expected: object) -> None:
    options = LOCKED.read(serve_arguments.split_words(text))
    assert serve_arguments.document(options, "--speculative-config") == expected


def test_the_last_one_counts() -> None:
    options = LOCKED.read(["--seed", "1", "--seed=2", "-ep", "--no-enable-expert-parallel"])
    assert serve_arguments.value(options, "--seed") == "2"
    assert serve_arguments.value(options, "--enable-expert-parallel") is None
    assert serve_arguments.value(options, "--port") is None
