"""systemd_quote: whatever the argument, systemd passes on the very same one."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.server import systemd_quote
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.readers import parsed_by_systemd, systemd_parser, systemd_words

# Everything that a unit file can hold in one line: no control characters, no lone surrogates, and none of Unicode's 66
# noncharacters, which systemd does not take for UTF-8.
NONCHARACTERS = [chr(point) for point in range(0xFDD0, 0xFDF0)] + [
    chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF)
]
TEXT = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters=NONCHARACTERS), max_size=40
)
AWKWARD = [
    "",
    " ",
    "plain",
    "--flag=value",
    "two words",
    "100%",
    "%h%%i",
    "$HOME ${HOME} $$",
    'say "hello"',
    "it's",
    "'quoted'",
    "back\\slash",
    "ends in \\",
    "\\",
    "\\n is not a newline",
    ";",
    "a;b",
    "#",
    '{"linear_backend_per_quant": {"fp8_w8a8": "torch"}}',
    "ünïcode ✓",
    "--volume=/srv/my models:/models:ro",
]


@pytest.mark.parametrize("argument", AWKWARD)
def test_argument_comes_through(argument: str) -> None:
    assert systemd_words(f"/bin/true {systemd_quote(argument)} last") == ["/bin/true", argument, "last"]


@given(TEXT)
@example("\\;")
def test_any_argument_comes_through(argument: str) -> None:
    assert systemd_words(f"/bin/true {systemd_quote(argument)} last") == ["/bin/true", argument, "last"]


def test_plain_words_stay_as_they_are() -> None:
    assert systemd_quote("--volume=/srv/models:/models:ro") == "--volume=/srv/models:/models:ro"


def test_numbers_are_words() -> None:
    assert systemd_quote(4096) == "4096"  # type: ignore[arg-type]


@pytest.mark.skipif(bool(systemd_parser()), reason=systemd_parser() or "-")
def test_systemd_itself_agrees() -> None:
    lines = [f"/bin/true {systemd_quote(argument)} last" for argument in AWKWARD]
    assert parsed_by_systemd(lines) == [["/bin/true", argument, "last"] for argument in AWKWARD]


@pytest.mark.skipif(bool(systemd_parser()), reason=systemd_parser() or "-")
@settings(max_examples=15, deadline=None)
@given(st.lists(TEXT, min_size=20, max_size=40))
def test_systemd_itself_agrees_on_any_argument(arguments: list[str]) -> None:
    lines = [f"/bin/true {systemd_quote(argument)} last" for argument in arguments]
    assert parsed_by_systemd(lines) == [["/bin/true", argument, "last"] for argument in arguments]


def test_model_refuses_what_would_be_expanded() -> None:
    for line in ("/bin/true %h", "/bin/true $HOME", "/bin/true ;", '/bin/true "open', "/bin/true \\q"):
        with pytest.raises(ValueError):
            systemd_words(line)
