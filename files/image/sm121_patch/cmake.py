"""The architecture lists of vLLM's CMakeLists.txt, for source builds: does each kernel family get a GB10 target?

    python3 -m sm121_patch cmake check|apply --root SRC     # SRC holds CMakeLists.txt and cmake/utils.cmake

(`python3 -m sm121_patch.cmake` needs only files.py from the package: source mode copies nothing else before it
compiles, so that an edit of the routes does not compile vLLM again.)

What CMake makes of the lists is not guessed: the release's own functions (cmake/utils.cmake) run over the release's
own statements under `cmake -P`, once as with nvcc 12.9 and once as with nvcc 13.0, for the targets of
TORCH_CUDA_ARCH_LIST. A list is right when it has an entry that runs on capability 12.1 and kept its suffix: 12.1a,
12.1f, or the family 12.0f.

Three states in the released sources:
  up to 0.18   nvcc 12.9 gets 12.0a, which 12.1 cannot run; nvcc 13 gets 12.0f
  0.19         12.1 is supported but the nvcc 13 lists have 12.0f only: a target of 12.1 loses its suffix there
  from 0.20    correct without an edit
Only lists of kernels for 12.x are edited: of SCALED_MM_ARCHS the one for CUTLASS 3.x on 12.0. Its other statements
(9.0a; 10.0 and 11.0, three times) stay: vLLM's dispatch (scaled_mm_entry.cu) sends no 12.x GPU to those kernels.
12.1 in CUDA_SUPPORTED_ARCHS alone would leave the nvcc 13 lists of 0.14 empty: no FP8 kernels, and no error.
All lists are edited or none: the edited text is checked the same way before it is written.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import PatchError
from .files import read, write

NVCC = ("12.9", "13.0")
#: Targets that source builds use: the GB10 alone, and the family with the GB10.
TARGETS = ("12.1", "12.0f;12.1f")
#: These have 12.x kernels in every release; MLA_ARCHS only up to 0.23, FP4_ARCHS became FP4_SM120_ARCHS in 0.24.
REQUIRED = ("SCALED_MM_ARCHS", "CUTLASS_MOE_DATA_ARCHS", "FP4_(SM120_)?ARCHS")
RUNS_ON_GB10 = frozenset({"12.0f", "12.1a", "12.1f"})

_SUPPORTED = re.compile(
    r"if\(DEFINED CMAKE_CUDA_COMPILER_VERSION AND(?:(?!\bendif\().)*?"
    r"set\(CUDA_SUPPORTED_ARCHS\s.*?\bendif\(\)",
    re.DOTALL,
)
_CALL = r'cuda_archs_loose_intersection\(\s*{name}\s+"([^"]*)"\s+"\$\{{CUDA_ARCHS\}}"\s*\)\s*'
_PAIR = re.compile(
    r"if\s*\(\$\{CMAKE_CUDA_COMPILER_VERSION\} VERSION_GREATER_EQUAL 13\.0\)\s*"
    + _CALL.format(name=r"(\w+)")
    + r"else\(\)\s*"
    + _CALL.format(name=r"\1")
    + r"endif\(\)"
)


@dataclass(frozen=True)
class Row:
    """One list under one compiler and target."""

    nvcc: str
    target: str
    name: str
    archs: tuple[str, ...]

    def right(self) -> bool:
        """Whether the kernels of this list run on capability 12.1."""
        if self.name == "CUDA_ARCHS":
            return any(arch.startswith("12.") for arch in self.archs)
        return bool(RUNS_ON_GB10 & set(self.archs))


def _blocks(text: str) -> tuple[str, list[re.Match[str]]]:
    """The statement that sets CUDA_SUPPORTED_ARCHS, and the pairs of lists that have a 12.x entry."""
    supported = _SUPPORTED.findall(text)
    if len(supported) != 1:
        raise PatchError(
            f"CMakeLists.txt sets CUDA_SUPPORTED_ARCHS in {len(supported)} known ways instead of 1: "
            "add this release to sm121_patch/cmake.py."
        )
    pairs = [match for match in _PAIR.finditer(text) if "12." in match.group(2) or "12." in match.group(3)]
    names = [match.group(1) for match in pairs]
    for required in REQUIRED:
        count = sum(bool(re.fullmatch(required, name)) for name in names)
        if count != 1:
            raise PatchError(
                f"CMakeLists.txt has {count} lists {required} with a 12.x entry instead of 1: "
                "add this release to sm121_patch/cmake.py."
            )
    return supported[0], pairs


def _program(text: str, utils: Path, nvcc: str, target: str) -> str:
    supported, pairs = _blocks(text)
    codes = [re.sub(r"^(\d+)\.(\d+)", r"\1\2", arch) for arch in target.split(";")]
    flags = ";".join(f"-gencode arch=compute_{code},code=sm_{code}" for code in codes)
    lines = [
        "cmake_minimum_required(VERSION 3.18)",
        f'include("{utils}")',
        f"set(CMAKE_CUDA_COMPILER_VERSION {nvcc})",
        supported,
        f'extract_unique_cuda_archs_ascending(CUDA_ARCHS "{flags}")',
        'cuda_archs_loose_intersection(CUDA_ARCHS "${CUDA_SUPPORTED_ARCHS}" "${CUDA_ARCHS}")',
        'message("CUDA_ARCHS=${CUDA_ARCHS}")',
    ]
    for match in pairs:
        lines += [match.group(0), f'message("{match.group(1)}=${{{match.group(1)}}}")']
    return "\n".join(lines) + "\n"


def evaluate(text: str, utils: Path, targets: tuple[str, ...] = TARGETS) -> list[Row]:
    """Run the release's CMake functions over `text`; one row per list, compiler and target."""
    cmake = shutil.which("cmake")
    if cmake is None:
        raise PatchError("cmake is not installed: run `pip install cmake` or `apt-get install cmake`.")
    rows: list[Row] = []
    for nvcc in NVCC:
        for target in targets:
            with tempfile.NamedTemporaryFile("w", suffix=".cmake", encoding="utf-8") as script:
                script.write(_program(text, utils, nvcc, target))
                script.flush()
                done = subprocess.run([cmake, "-P", script.name], capture_output=True, text=True, check=False)
            if done.returncode:
                output = " ".join(done.stderr.split())[-300:]
                raise PatchError(f"cmake could not evaluate the lists with {utils} ({output}).")
            for name, archs in re.findall(r"^(\w+)=(.*)$", done.stderr, re.MULTILINE):
                rows.append(Row(nvcc, target, name, tuple(filter(None, archs.split(";")))))
    return rows


def edit(text: str) -> str:
    """`text` with 12.1 next to each 12.0 of the supported architectures and of the 12.x kernels' lists."""
    supported, pairs = _blocks(text)

    def add(archs: str, suffix: str) -> str:
        entries = archs.split(";")
        old, new = f"12.0{suffix}", f"12.1{suffix}"
        return ";".join([*entries, new]) if old in entries and new not in entries else archs

    wider = re.sub(r'(set\(CUDA_SUPPORTED_ARCHS\s+")([^"]*)"', lambda m: f'{m[1]}{add(m[2], "")}"', supported)
    text = text.replace(supported, wider)
    for match in pairs:
        block = match.group(0)
        text = text.replace(
            block, re.sub(r'"(1?\d\.[^"]*)"', lambda m: f'"{add(add(m[1], "f"), "a")}"', block)
        )
    return text


def _report(rows: list[Row]) -> None:
    for row in rows:
        verdict = "ok" if row.right() else "EMPTY" if not row.archs else "does not run on 12.1"
        print(
            f"nvcc {row.nvcc}  target {row.target:<12} {row.name:<26} {';'.join(row.archs) or '-':<24} {verdict}"
        )


def main(argv: list[str]) -> int:
    """check: exit 0 if every list is right, 1 if apply is needed; apply: 0 if right or edited; 2 refused."""
    parser = argparse.ArgumentParser(
        prog="sm121_patch cmake", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("check", "apply"))
    parser.add_argument("--root", required=True, type=Path, metavar="SRC", help="vLLM's unpacked source")
    parser.add_argument(
        "--target", action="append", metavar="LIST", help="as for TORCH_CUDA_ARCH_LIST; may repeat"
    )
    options = parser.parse_args(argv)
    lists, utils = options.root / "CMakeLists.txt", options.root.resolve() / "cmake" / "utils.cmake"
    targets = tuple(options.target or TARGETS)
    try:
        text = read(lists)
        rows = evaluate(text, utils, targets)
        if all(row.right() for row in rows):
            _report(rows)
            print(f"{lists}: every list has a target that runs on 12.1: no edit needed")
            return 0
        if options.verb == "check":
            _report(rows)
            print(f"{lists}: NOT right for 12.1: run apply")
            return 1
        edited = edit(text)
        rows = evaluate(edited, utils, targets)
        _report(rows)
        wrong = [f"{row.name} (nvcc {row.nvcc}, {row.target})" for row in rows if not row.right()]
        if wrong:
            raise PatchError(
                f"{lists} would still be wrong after the edit for {', '.join(wrong)}: nothing was written."
            )
        write(lists, edited)
        changed = len(set(edited.splitlines()) - set(text.splitlines()))
        print(f"{lists}: 12.1 added to {changed} statements")
    except PatchError as error:
        print(f"sm121_patch: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
