"""Inputs of other machines and hands, damaged on purpose: a fixed seed, no deadline, so many examples per target.

`DGX_VLLM_FUZZ=N` tries N times as many; `make test-all` asks for that.
"""

from __future__ import annotations

import copy
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FACTOR = float(os.environ.get("DGX_VLLM_FUZZ", "1"))
EXAMPLES = 100
TRIED: Counter[str] = Counter()
"""Target -> inputs tried in this run."""

_GONE = object()
ODD_NUMBERS = ("1.2.", ".", "", "²", "٣", "-1", "nan", "inf", "1e999", "0x1f", "9" * 400, "9" * 5000, "8_000")
ODD_TEXTS = (
    "", " ", "\0", "a\nb", "\r\n", "²", "\ud800", "../../x", "/x", "-x", "--flag", "re:(", "*", "re:*", "a: b", "`",
    "0x1f", "null", "[" * 50, "%n", "é" * 300, *ODD_NUMBERS[:-2],
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    (
        None, True, False, 0, -1, 1, 2**70, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"),
        [], [None], [[]], [{}], [1, "a"], {}, {"a": 1}, {"": None}, {"x": []}, *ODD_TEXTS,
    )
)  # fmt: skip


def fuzz(
    target: str, *strategies: st.SearchStrategy[Any], examples: int = EXAMPLES
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """A test that tries the function on many inputs and counts them under `target`."""

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        def tried(values: tuple[Any, ...]) -> None:
            TRIED[target] += 1
            function(*values)

        tried.__name__ = tried.__qualname__ = function.__name__
        tried.__module__ = function.__module__
        limits = settings(
            max_examples=max(1, int(examples * FACTOR)),
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        return limits(given(st.tuples(*strategies))(tried))

    return decorate


def _places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _places(value, (*path, key))


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """`document` with up to three of its values dropped or replaced."""
    data = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([place for place in _places(data) if place]))
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        value = draw(st.one_of(VALUES, VALUES, st.just(_GONE)))
        if value is not _GONE:
            place[path[-1]] = copy.deepcopy(value)
        elif len(path) > 1:
            del place[path[-1]]
    return data[0]


@st.composite
def damaged_text(draw: st.DrawFn, *samples: str) -> str:
    """One of `samples` with pieces replaced, dropped or repeated."""
    text = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 6)))
        piece = draw(st.one_of(st.sampled_from((*ODD_NUMBERS, *ODD_TEXTS)), st.text(max_size=4)))
        text = text[:begin] + piece + text[end:]
    return text


@st.composite
def other_numbers(draw: st.DrawFn, sample: str) -> str:
    """`sample` with some of its numbers replaced by odd ones."""
    return re.sub(
        r"\d[\d.]*", lambda match: draw(st.sampled_from((match[0], match[0], match[0], *ODD_NUMBERS))), sample
    )
