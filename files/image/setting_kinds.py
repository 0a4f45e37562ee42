"""What one setting may hold: its type, its range and its grammar.

The role checks an inventory with these before anything is changed, and the image's entry point checks its environment
with the same, so that what one accepts the other does not refuse.

Standard library, Python 3.9. The collection's plugins/module_utils/serve/kinds.py is a link to this file.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional

Test = Callable[[str], bool]

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"(?:[0-9]{1,9})?\.[0-9]{1,18}|[0-9]{1,9}\.?")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_YES_OR_NO = ("true", "false", "yes", "no", "on", "off", "1", "0")
LONGEST_TEXT, LONGEST_ITEM = 4096, 32768
"""Docker reads at most 64 KiB of a line of an environment file."""


class Kind(NamedTuple):
    """`type` as in argument_specs; `expected` completes "set it to …".

    A number lies between `low` and `high`, a text passes `test` or is empty where `empty` says so. `of` is what a list
    or a dictionary without fixed `keys` holds.
    """

    type: str
    expected: str
    low: float = 0
    high: float = 0
    test: Optional[Test] = None
    empty: bool = False
    choices: tuple[str, ...] = ()
    of: Optional[Kind] = None
    keys: Optional[Mapping[str, Kind]] = None
    numbers: bool = False
    ends: bool = False
    """Whether a space at an end, or a backslash at the last one, does no harm."""
    longest: int = LONGEST_TEXT


def whole(low: int, high: int, what: str = "a whole number") -> Kind:
    """A whole number."""
    return Kind("int", f"{what} from {low} to {high}", low, high)


def decimal(low: float, high: float, expected: str = "") -> Kind:
    """A number, with a point or without, and without an exponent."""
    return Kind("float", expected or f"a number from {low:g} to {high:g}", low, high)


def text(expected: str, pattern: str = ".*", empty: bool = True, test: Optional[Test] = None) -> Kind:
    """A text that matches `pattern` whole."""
    compiled = re.compile(pattern, re.ASCII)
    return Kind("str", expected, test=test or (lambda value: bool(compiled.fullmatch(value))), empty=empty)


def choice(*values: str) -> Kind:
    """One of a few words."""
    return Kind("str", f"one of {', '.join(values)}", choices=values)


def items(expected: str, pattern: str = ".*", numbers: bool = False) -> Kind:
    """A list of texts, which are empty only where no pattern is given."""
    one = text(expected, pattern, pattern == ".*")._replace(ends=True, longest=LONGEST_ITEM, numbers=numbers)
    return Kind("list", f"a list, each item {expected}", of=one)


def limits(**keys: Kind) -> Kind:
    """A dictionary of known names."""
    return Kind("dict", f"a dictionary of {', '.join(keys)}", keys=keys)


def is_host(value: str) -> bool:
    """Whether a server can be told to listen there: an IP address without brackets, or a host name."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        named = all(_LABEL.fullmatch(label) for label in value.split("."))
        return named and len(value) < 254 and not re.fullmatch(r"[0-9.]+", value)
    return re.fullmatch(r"[0-9A-Fa-f.:]+(?:%[A-Za-z0-9_.-]{1,15})?", value) is not None


SWITCH = Kind("bool", "true or false")
PORT = whole(1, 65535, "a port")
HOST = text("an address or host name without brackets, such as 127.0.0.1 or ::", empty=False, test=is_host)
PARTS = whole(1, 1024)
SEQUENCES = whole(1, 1_000_000)
TOKENS = text("a number of tokens such as 32768 or 32k, or auto", "[1-9][0-9]{0,9}[kKmM]?|auto|-1", False)
SHARE = decimal(0.0001, 1, "a fraction above 0 and up to 1, such as 0.8")
GRACE = whole(0, 86400, "a number of seconds")
MODEL = text("a Hugging Face id or a directory, and does not begin with -", r"(?!-).*", empty=False)
CAPABILITY = text("a capability, written as 12.1", r"[0-9]{1,3}\.[0-9]{1,3}", empty=False)


def fits(kind: Kind, value: Any) -> bool:
    """Whether a number, a text or a switch is one that `kind` describes; numbers may be written as text."""
    if kind.type == "bool":
        if isinstance(value, (bool, str)):
            return str(value).lower() in _YES_OR_NO
        return isinstance(value, int) and value in (0, 1)
    if kind.type in ("int", "float"):
        return _number_fits(kind, value)
    if kind.numbers and isinstance(value, (int, float)) and abs(value) < 10**18:
        return True
    if not isinstance(value, str) or unwritable(kind, value):
        return False
    if value == "" and not kind.choices:
        return kind.empty
    return value in kind.choices if kind.choices else kind.test is None or kind.test(value)


def _number_fits(kind: Kind, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    if isinstance(value, int):
        return kind.low <= value <= kind.high
    pattern = _WHOLE if kind.type == "int" else _DECIMAL
    return bool(pattern.fullmatch(str(value))) and kind.low <= float(value) <= kind.high


def unwritable(kind: Kind, value: str) -> str:
    """What no line of a unit or of an environment file can hold, as 'has a line break'; '' if it can."""
    if re.search("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", value):
        return "has a line break, which no unit or environment file can hold; remove it"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        return "has a control character or half of a surrogate pair, which no file here can hold; remove it"
    if len(value) > kind.longest:
        return f"is longer than {kind.longest} characters; shorten it"
    if not kind.ends and value != value.strip():
        return "begins or ends with a space; remove it"
    if not kind.ends and value.endswith("\\"):
        return "ends with a backslash, which joins a line of the unit with the next; remove it"
    return ""


def read_wrong(name: str, kind: Kind, value: str) -> str:
    """Why the entry point refuses the environment variable `name`; '' if it does not."""
    return "" if fits(kind, value) else f"{name}={value!r} is not {kind.expected}."
