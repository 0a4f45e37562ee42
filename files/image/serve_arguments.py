"""Read the arguments of `vllm serve` as vLLM's own parser does, without vLLM.

The grammar is argparse's with what vLLM's FlexibleArgumentParser adds: `--flag=value`, short forms (`-tp 2`), unique
beginnings of a name (`--tensor-par 2`), `--no-flag` and `--disable-flag`, `_` for `-` in a name, and keys of JSON after
a dot (`--kernel-config.moe_backend triton`). Which options there are is told by a table (option_table.py has its
format). An option that the table lacks is read by its looks: one word after it that is not an option is its value.

Standard library, Python 3.9: it runs in the image, on nodes and on the operator's machine. The collection's
plugins/module_utils/serve/arguments.py is a link to it.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any, NamedTuple, Optional, Sequence

_SHELL_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*")+""", re.DOTALL)
_JSON_START = re.compile(r"(?:--?[A-Za-z0-9][\w.-]*=)?(?=[{\[])")
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
_LEVEL = re.compile(r"-O=?(.*)")
LEVEL = "--optimization-level"


def split_words(text: str) -> list[str]:
    """Split like a shell, but keep a word that starts with unquoted JSON as it is; ValueError for an open quote."""
    words: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return words
        start = _JSON_START.match(text, at)
        if start:
            try:
                _, end = json.JSONDecoder().raw_decode(text, start.end())
            except ValueError:
                end = 0
            if end and (end == len(text) or text[end].isspace()):
                words.append(text[at:end])
                at = end
                continue
        word = _SHELL_WORD.match(text, at)
        if word is None or (word.end() < len(text) and not text[word.end()].isspace()):
            raise ValueError("a quote is not closed, or the text ends in a backslash")
        words.append("".join(shlex.split(word.group())))
        at = word.end()


class Option(NamedTuple):
    """One option of a command line. `name` is the one it is known by, "" for a word that belongs to no option."""

    name: str
    values: tuple[str, ...]
    written: str
    on: bool = True
    path: str = ""
    """What follows the dot of the name: the keys of a JSON value."""


class Grammar:
    """The options that a table names."""

    def __init__(self, table: str) -> None:
        self._rows: dict[str, tuple[str, str, bool]] = {}
        for line in table.split("\n"):
            names, _, words = line.strip().rpartition(" ")
            first = names.partition(" ")[0]
            takes = "0" if words in ("no", "pair") else words
            for name in names.split():
                self._rows[name] = (first, takes, True)
                for off in off_names(name, words):
                    self._rows[off] = (first, takes, False)

    def knows(self, name: str) -> bool:
        """Whether the table has an option of this name."""
        return name in self._rows

    def read(self, words: Sequence[str]) -> list[Option]:
        """The options of a command line, in its order."""
        found: list[Option] = []
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            if word == "--":
                return found + [Option("", (one,), one) for one in words[at:]]
            if not self._is_option(word):
                found.append(Option("", (word,), word))
                continue
            option, takes = self._option(word)
            if option.values or takes == "0":
                found.append(option)
                continue
            end = at
            while end < len(words) and words[end] != "--" and end - at < _takes_at_most(takes):
                # vLLM itself takes the word after a dotted name, whatever it looks like.
                if self._is_option(words[end]) and not option.path:
                    break
                end += 1
            found.append(option._replace(values=tuple(words[at:end])))
            at = end
        return found

    def _is_option(self, word: str) -> bool:
        if not word.startswith("-") or word == "-" or _NUMBER.fullmatch(word):
            return False
        return not re.match(r"[^=]*\s", word) or self._find(word)[0] in self._rows

    def _option(self, word: str) -> tuple[Option, str]:
        """The option, with the value that its own word has, and how many words it takes."""
        level = _LEVEL.fullmatch(word)
        if level:
            return Option(LEVEL, (level[1],) if level[1] else (), "-O"), "1"
        key, equals, value = word.partition("=")
        base, dot, path = key.partition(".")
        if dot and (equals or not self.knows(key)):
            name = self._find(base)[0]
            first = self._rows.get(name, (name, "1", True))[0]
            return Option(first, (value,) if equals else (), base, path=path), "1"
        name, inline = self._find(word)
        if name not in self._rows:
            return Option(name, (value,) if equals else (), key), "?"
        first, takes, on = self._rows[name]
        return Option(first, () if inline is None else (inline,), key, on), takes

    def _find(self, word: str) -> tuple[str, Optional[str]]:
        """The name in the table that `word` stands for, else the one written, and the value within the word."""
        if word in self._rows:
            return word, None
        key, equals, value = word.partition("=")
        inline = value if equals else None
        if key.startswith("--"):
            key = key.replace("_", "-")
        if key in self._rows:
            return key, inline
        near = [name for name in self._rows if name.startswith(key)]
        if not key.startswith("--") and word[:2] in self._rows and word[2:]:
            near.append(word[:2])
        if near and len({self._rows[name] for name in near}) == 1:
            return near[0], word[2:] if near[0] == word[:2] else inline
        return key, inline


def off_names(name: str, words: str) -> list[str]:
    """The names that switch an option off; the table's last word says which there are."""
    names = [f"--no-{name[2:]}"] if words in ("no", "pair") and name.startswith("--") else []
    for one, other in (("--enable-", "--disable-"), ("--disable-", "--enable-")):
        if words == "pair" and name.startswith(one):
            names.append(other + name[len(one) :])
    return names


def _takes_at_most(words: str) -> int:
    """The largest number of words that an option takes."""
    return int(words) if words.isdigit() else 1 if words == "?" else 10**6


def last(options: Sequence[Option], name: str) -> Optional[Option]:
    """The last option of that name, which is the one that counts; None without one, or if it is switched off."""
    given = [option for option in options if option.name == name and not option.path]
    return given[-1] if given and given[-1].on else None


def value(options: Sequence[Option], name: str) -> Optional[str]:
    """Its (first) value; "" for a bare option."""
    option = last(options, name)
    return None if option is None else "".join(option.values[:1])


def document(options: Sequence[Option], name: str) -> Optional[dict[str, Any]]:
    """The JSON object that an option has, whole or by keys after a dot; None without one that can be read.

    vLLM adds the keys as an option of their own after all others, so they replace an object given as a whole.
    """
    made: dict[str, Any] = {}
    for option in options:
        if option.name == name and option.path:
            *keys, leaf = option.path.rstrip("+").split(".")
            place = made
            for key in keys:
                place = place.setdefault(key, {}) if isinstance(place.get(key, {}), dict) else {}
            place[leaf] = _plain("".join(option.values), option.path.endswith("+"))
    if made:
        return made
    try:
        whole = json.loads(value(options, name) or "")
    except ValueError:
        return None
    return whole if isinstance(whole, dict) else None


def _plain(text: str, several: bool) -> Any:
    if several:
        return text.split(",")
    try:
        return json.loads(text)
    except ValueError:
        return text
