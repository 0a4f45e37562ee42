"""The options of `vllm serve`, read from vLLM's sources: which names each has, and how many words it takes.

Only the sources are read, so it needs neither vLLM's dependencies nor a GPU, and one program makes both tables: that of
the image, from the vLLM in it (install_patch.py), and that of the collection, from the locked release
(scripts/serve-options).
vLLM makes most options from the fields of its config classes; what a field's type means is told by get_kwargs there.

One line per option: its names (the first is the one that it is known by), and the words that it takes: 0, 1, a number,
? for none or one, + for one or more; no for a switch that --no-NAME switches off, pair for one that --disable-NAME of
--enable-NAME (or the reverse) does too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

PARSERS = (
    "entrypoints/openai/cli_args.py",
    "entrypoints/common/cli_args.py",
    "entrypoints/launchers/cli_args.py",
    "engine/arg_utils.py",
)
FRONTEND = ("BaseFrontendArgs", "FrontendArgs")
SWITCHES = ("store_true", "store_false", "BooleanOptionalAction")
PAIRED = ("--enable-", "--disable-")


class Sources:
    """The classes and the names of types that vLLM's parser and its configs define."""

    def __init__(self, root: Path) -> None:
        package = root / "vllm"
        self.parsers = [ast.parse(path.read_text("utf-8")) for path in self._present(package, PARSERS)]
        configs = [
            ast.parse(path.read_text("utf-8")) for path in sorted((package / "config").glob("**/*.py"))
        ]
        self.classes: dict[str, ast.ClassDef] = {}
        self.types: dict[str, ast.expr] = {}
        for node in (node for tree in (*configs, *self.parsers) for node in tree.body):
            self._learn(node)
        grammar = self._present(package, ("utils/argparse_utils.py", "utils/__init__.py"))
        self.pairs = any("class EnableDisableAction" in path.read_text("utf-8") for path in grammar)

    @staticmethod
    def _present(package: Path, names: tuple[str, ...]) -> list[Path]:
        return [package / name for name in names if (package / name).is_file()]

    def _learn(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ClassDef):
            self.classes[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            self.types[node.target.id] = node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            self.types[node.targets[0].id] = node.value

    def field(self, owner: str, name: str) -> Optional[ast.expr]:
        """The type of a class's field, its own or inherited."""
        node = self.classes.get(owner)
        for item in node.body if node else ():
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and item.target.id == name
            ):
                return item.annotation
        for base in node.bases if node else ():
            found = self.field(ast.unparse(base), name)
            if found is not None:
                return found
        return None

    def words(self, annotation: Optional[ast.expr]) -> str:
        """How many words an option of this type takes; 0 is a pair of switches."""
        parts = list(self._parts(annotation))
        names = {part for part, _ in parts}
        if names & set(self.classes):
            return "1"
        if names == {"bool", "str", "None"}:
            return "?"
        if "bool" in names:
            return "0"
        if "Literal" in names:
            return "1"
        for name, node in parts:
            if name in ("tuple", "Tuple") and isinstance(node, ast.Tuple):
                return "+" if "..." in ast.unparse(node) else str(len(node.elts))
            if name in ("list", "List", "set", "Set", "tuple", "Tuple"):
                return "+"
        return "1"

    def _parts(self, node: Optional[ast.expr]) -> Iterator[tuple[str, Optional[ast.expr]]]:
        """The members of a union, each with what stands in its brackets; names of types are looked up."""
        if isinstance(node, ast.BinOp):
            yield from self._parts(node.left)
            yield from self._parts(node.right)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from self._parts(ast.parse(node.value, mode="eval").body)
        elif isinstance(node, ast.Subscript):
            name = ast.unparse(node.value).rpartition(".")[2]
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if name in ("Optional", "Union"):
                for one in inner:
                    yield from self._parts(one)
                if name == "Optional":
                    yield "None", None
            elif name == "Annotated":
                yield from self._parts(inner[0])
            else:
                yield name, node.slice
        elif isinstance(node, ast.Name) and node.id in self.types and node.id not in self.classes:
            yield from self._parts(self.types[node.id])
        elif node is not None:
            yield ast.unparse(node).rpartition(".")[2], None


def _kwargs_of(function: ast.AST) -> dict[str, str]:
    """Local name -> the config class whose options `name = get_kwargs(Class)` holds."""
    found = {}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        call = node.value
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "get_kwargs" and call.args:
            found[node.targets[0].id] = ast.unparse(call.args[0])
    return found


def _declared(call: ast.Call, kwargs: dict[str, str], sources: Sources) -> tuple[str, bool]:
    """(words, whether --no- names exist) of one add_argument call."""
    words, pair = "1", False
    for keyword in call.keywords:
        if keyword.arg is None:
            for node in ast.walk(keyword.value):
                if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                    owner = kwargs.get(ast.unparse(node.value), "")
                    words = sources.words(sources.field(owner, str(node.slice.value)))
                    pair = words == "0"
    for keyword in call.keywords:
        if keyword.arg == "action":
            action = ast.unparse(keyword.value).strip("'\"").rpartition(".")[2]
            words, pair = ("0", action == SWITCHES[2]) if action in SWITCHES else (words, pair)
        elif keyword.arg == "nargs":
            words = ast.unparse(keyword.value).strip("'\"")
    return words, pair


def _added(function: ast.AST, sources: Sources) -> Iterator[tuple[list[str], str, bool]]:
    """(names, words, pair) of every add_argument call with names of its own."""
    kwargs = _kwargs_of(function)
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            if names and all(isinstance(name, str) and name.startswith("-") for name in names):
                yield [str(name) for name in names], *_declared(node, kwargs, sources)


def _frontend(sources: Sources) -> Iterator[tuple[list[str], str, bool]]:
    """The server's own options: a field each, some of them changed by the class before they are added."""
    text = "\n".join(ast.unparse(sources.classes[name]) for name in FRONTEND if name in sources.classes)
    for owner in FRONTEND:
        for item in sources.classes[owner].body if owner in sources.classes else ():
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            name, words = item.target.id, sources.words(item.annotation)
            if f"del frontend_kwargs['{name}']['nargs']" in text:
                words = "1"
            yield [f"--{name.replace('_', '-')}"], words, words == "0"


def read(root: Path) -> str:
    """The table of the vLLM whose package folder is in `root`; OSError or SyntaxError if its sources cannot be read."""
    sources = Sources(root)
    lines = {"--help": "--help -h 0"}
    declared = [*_frontend(sources)]
    for tree in sources.parsers:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in ("add_cli_args", "make_arg_parser"):
                declared += _added(node, sources)
    for names, words, pair in declared:
        # vLLM takes _ for - in what it is given, and some options are declared with _.
        names = [name.replace("_", "-") if name.startswith("--") else name for name in names]
        names.sort(key=lambda name: not name.startswith("--"))
        if pair:
            words = "pair" if sources.pairs and any(name.startswith(PAIRED) for name in names) else "no"
        lines[names[0]] = " ".join([*names, words])
    return "\n".join(lines[name] for name in sorted(lines)) + "\n"
