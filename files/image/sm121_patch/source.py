"""Find a function in Python source by its syntax tree, insert whole lines into it, and remove them.

Text is handled as str with its line ends kept, and only whole lines are added, so removing them restores
the original bytes.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap

from . import PATCH_VERSION, PatchError
from .layouts import Layout

_BEGIN = "# >>> dgx-vllm sm121_patch"
_END = "# <<< dgx-vllm sm121_patch"

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _lines(text: str) -> list[str]:
    """Lines with their ends, counted as ast counts them (str.splitlines also splits at form feeds)."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def parameter_names(function: _Function) -> tuple[str, ...]:
    """Names in order; "*" stands before keyword-only ones, "*x" and "**x" for the collecting ones."""
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    if args.vararg:
        names.append("*" + args.vararg.arg)
    elif args.kwonlyargs:
        names.append("*")
    names += [arg.arg for arg in args.kwonlyargs]
    if args.kwarg:
        names.append("**" + args.kwarg.arg)
    return tuple(names)


def _functions(tree: ast.Module, qualified: str) -> list[_Function]:
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    *classes, name = qualified.split(".")
    for class_name in classes:
        scopes = [
            n for scope in scopes for n in scope.body if isinstance(n, ast.ClassDef) and n.name == class_name
        ]
    return [n for scope in scopes for n in scope.body if isinstance(n, _Function) and n.name == name]


def _bound_names(nodes: list[ast.stmt]) -> set[str]:
    """Names that these statements bind in their own scope (nested scopes left out)."""
    found: set[str] = set()
    todo: list[ast.AST] = list(nodes)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        todo.extend(ast.iter_child_nodes(node))
    return found


def _used_names(code: str) -> set[str]:
    tree = ast.parse(textwrap.dedent(code))
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    params = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return used - params - _bound_names(tree.body)


def _one_function(tree: ast.Module, name: str, params: tuple[str, ...], file: str) -> _Function:
    found = _functions(tree, name)
    if len(found) != 1:
        raise PatchError(f"{file} defines {name}() {len(found)} times instead of once")
    if parameter_names(found[0]) != params:
        have = ", ".join(parameter_names(found[0]))
        raise PatchError(f"{name}() in {file} takes ({have}), not ({', '.join(params)})")
    return found[0]


def insert(text: str, layout: Layout) -> str:
    """`text` with the layout's lines put at its anchor; PatchError (a clause without advice) if it does not fit."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise PatchError(f"{layout.file} is not valid Python ({error})") from None
    function = _one_function(tree, layout.function, layout.params, layout.file)
    for name, params in layout.relies_on.items():
        _one_function(tree, name, params, layout.file)
    places = [i for i, stmt in enumerate(function.body) if layout.is_anchor(stmt)]
    if len(places) != 1:
        raise PatchError(
            f"{layout.function}() in {layout.file} has the anchor `{layout.anchor}` {len(places)} times instead of once"
        )
    index = places[0]
    anchor = function.body[index]
    params_bound = {name.lstrip("*") for name in layout.params}
    visible = _bound_names(tree.body) | _bound_names(function.body[: index + int(layout.after)])
    unknown = sorted(_used_names(layout.code) - visible - params_bound - set(dir(builtins)))
    if unknown:
        raise PatchError(
            f"{layout.file} no longer has {', '.join(unknown)} where {layout.function}() can use it"
        )

    lines = _lines(text)
    newline = "\r\n" if lines[anchor.lineno - 1].endswith("\r\n") else "\n"
    at = (anchor.end_lineno or anchor.lineno) if layout.after else anchor.lineno - 1
    indent = " " * anchor.col_offset
    block = [f"{_BEGIN} {PATCH_VERSION}: {layout.route}", *layout.code.strip().splitlines(), _END]
    lines[at:at] = [(indent + line if line else "") + newline for line in block]
    patched = "".join(lines)
    try:
        compile(patched, layout.file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise PatchError(f"{layout.file} would not compile after the insert ({error})") from None
    return patched


def strip(text: str, file: str) -> str:
    """`text` without our blocks of any patch version; PatchError if a block has lost an end."""
    kept: list[str] = []
    inside = False
    for number, line in enumerate(_lines(text), start=1):
        mark = line.strip()
        begins, ends = mark.startswith(_BEGIN), mark.startswith(_END)
        if (begins and inside) or (ends and not inside):
            raise PatchError(
                f"{file} line {number}: a block of sm121_patch was edited by hand; install vLLM again"
            )
        if begins or ends:
            inside = begins
        elif not inside:
            kept.append(line)
    if inside:
        raise PatchError(f"{file}: a block of sm121_patch has lost its end; install vLLM again")
    return "".join(kept)


def has_block(text: str) -> bool:
    """Whether `text` has a block of ours, of any patch version."""
    return _BEGIN in text
