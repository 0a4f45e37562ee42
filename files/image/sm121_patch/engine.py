"""Plan, write, inspect and undo the patch of one vLLM tree. All routes or none."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import FIRST_SUPPORTED, LAST_SUPPORTED, PATCH_VERSION, PatchError, record, runtime
from .files import read, write
from .layouts import HELPER_FILE, LAYOUTS, RECORD_FILE, ROUTES, Layout
from .source import has_block, insert, strip

_MARKERS = {"linear": runtime.LINEAR_MARKER, "moe": runtime.MOE_MARKER}
_HELPERS = {HELPER_FILE: Path(runtime.__file__), RECORD_FILE: Path(record.__file__)}
IMAGE_DIR = Path("/opt/dgx-vllm")


@dataclass(frozen=True)
class Route:
    """One line of the manifest."""

    name: str
    state: str
    file: str
    function: str
    sha256_before: str
    sha256_after: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a tree has now and what the patch turns it into: texts by file, relative to the root."""

    root: Path
    vllm_version: str
    current: dict[str, str]
    original: dict[str, str]
    patched: dict[str, str]
    routes: list[Route]

    def in_place(self) -> bool:
        """Whether every byte that the patch writes is on disk already."""
        return self.current == self.patched

    def manifest(self) -> dict[str, Any]:
        """The manifest as the contract between image and role has it."""
        return {
            "patch_version": PATCH_VERSION,
            "vllm_version": self.vllm_version,
            "routes": [asdict(route) for route in self.routes],
        }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def vllm_version(root: Path) -> str:
    """The version of ROOT/vllm, from its _version.py, or from the only vllm dist-info next to the package."""
    package = root / "vllm"
    if not (package / "__init__.py").is_file():
        raise PatchError(
            f"{root} has no vllm package: give --root the directory that contains vllm/__init__.py."
        )
    version_file = package / "_version.py"
    if version_file.is_file():
        match = re.search(r"^__version__\b.*=\s*['\"]([^'\"]+)['\"]", read(version_file), re.MULTILINE)
        if match:
            return match.group(1)
    found = sorted(package.resolve().parent.glob("vllm*-*.dist-info"))
    names = {m.group(1) for p in found if (m := re.fullmatch(r"vllm(?:_cpu)?-(.+)\.dist-info", p.name))}
    if len(names) != 1:
        raise PatchError(
            f"The version of {package} is unknown: neither vllm/_version.py nor a single dist-info has it."
        )
    return names.pop()


def _check_version(version: str, untested: bool) -> None:
    match = re.match(r"(\d+)\.(\d+)", version)
    number = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    if untested or FIRST_SUPPORTED <= number <= LAST_SUPPORTED:
        return
    span = f"0.{FIRST_SUPPORTED[1]}.0 to 0.{LAST_SUPPORTED[1]}.x"
    raise PatchError(
        f"vLLM {version} is outside {span}, the releases this patch is tested on: install one of those, "
        "or give --allow-untested to decide by the layout alone."
    )


def _fit(route: str, root: Path, originals: dict[str, str]) -> tuple[Layout, str]:
    """The one layout of `route` that fits, with the patched text of its file."""
    fits: list[tuple[Layout, str]] = []
    reasons: list[str] = []
    for layout in (item for item in LAYOUTS if item.route == route):
        if not (root / layout.file).is_file():
            reasons.append(f"[vLLM {layout.releases}] there is no {layout.file}")
            continue
        if layout.file not in originals:
            originals[layout.file] = strip(read(root / layout.file), layout.file)
        try:
            fits.append((layout, insert(originals[layout.file], layout)))
        except PatchError as error:
            reasons.append(f"[vLLM {layout.releases}] {error}")
    if len(fits) != 1:
        what = (
            "; ".join(reasons)
            if not fits
            else " and ".join(layout.releases for layout, _ in fits) + " fit at once"
        )
        raise PatchError(
            f"No known layout for the {route} route in {root}: {what}. "
            "Use a tested vLLM release, or add this one to sm121_patch/layouts.py."
        )
    return fits[0]


def _foreign_marker(route: str, root: Path) -> Layout | None:
    """A layout whose file prints the route's marker without our block: somebody else has routed it there."""
    if route not in _MARKERS:
        return None
    for layout in (item for item in LAYOUTS if item.route == route):
        path = root / layout.file
        if path.is_file():
            text = read(path)
            if not has_block(text) and _MARKERS[route] in text:
                return layout
    return None


def plan(root: Path, untested: bool = False) -> Plan:
    """Read the tree and compute the patched texts; PatchError if a route has no place."""
    version = vllm_version(root)
    _check_version(version, untested)
    originals: dict[str, str] = {}
    patched: dict[str, str] = {}
    routes: list[Route] = []
    for name in ROUTES:
        foreign = _foreign_marker(name, root)
        if foreign is not None:
            digest = _sha256(read(root / foreign.file))
            reason = f"{foreign.file} prints this route's marker by itself"
            routes.append(Route(name, "upstream", foreign.file, foreign.function, digest, digest, reason))
            continue
        try:
            layout, text = _fit(name, root, originals)
        except PatchError:
            # An untested release may do without the record: then its manifest does not promise one.
            if untested and name not in _MARKERS:
                continue
            raise
        patched[layout.file] = text
        routes.append(
            Route(
                name,
                "patched",
                layout.file,
                layout.function,
                _sha256(originals[layout.file]),
                _sha256(text),
                f"layout of vLLM {layout.releases}, anchor `{layout.anchor}`",
            )
        )
    original = {file: originals[file] for file in patched}
    current = {file: read(root / file) for file in patched}
    if patched:
        for file, source in _HELPERS.items():
            patched[file] = read(source)
            if (root / file).is_file():
                current[file] = read(root / file)
    return Plan(root, version, current, original, patched, routes)


def apply(root: Path, manifest: Path, untested: bool = False) -> Plan:
    """Put the routes in place and write the manifest; on an error the tree is restored."""
    made = plan(root, untested)
    helper_first = sorted(made.patched, key=lambda file: file not in _HELPERS)
    written: list[str] = []
    try:
        for file in helper_first:
            if made.current.get(file) != made.patched[file]:
                written.append(file)
                write(root / file, made.patched[file])
        write(manifest, json.dumps(made.manifest(), indent=2) + "\n")
    except (OSError, PatchError):
        for file in written:
            if file in made.current:
                write(root / file, made.current[file])
            else:
                (root / file).unlink(missing_ok=True)
        raise
    return made


def revert(root: Path, manifest: Path) -> list[str]:
    """Remove our lines, module and manifest; the changed files, relative to the root."""
    vllm_version(root)
    changed: list[str] = []
    for file in sorted({layout.file for layout in LAYOUTS}):
        path = root / file
        if path.is_file():
            text = read(path)
            if has_block(text):
                write(path, strip(text, file))
                changed.append(file)
    helpers = [(root / file, file) for file in _HELPERS]
    for extra, name in (*helpers, (manifest, str(manifest))):
        if extra.is_file():
            extra.unlink()
            changed.append(name)
    return changed


def default_manifest(root: Path) -> Path:
    """/opt/dgx-vllm/manifest.json in an image, otherwise a file inside the vllm package."""
    if IMAGE_DIR.is_dir():
        return IMAGE_DIR / "manifest.json"
    return root / "vllm" / "_dgx_vllm_manifest.json"
