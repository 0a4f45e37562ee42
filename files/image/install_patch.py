#!/usr/bin/env python3
"""The patch layer, the same in every build mode and in the testbed: run once, as root, while an image is built.

Patches the installed vLLM, copies the tuned MoE configurations to where vLLM looks for them, links
/app/vllm/vllm to the installed package, writes manifest.json, sbom.cdx.json and serve_options.txt (the options of this
vLLM's `serve`) to /opt/dgx-vllm. Exits non-zero, with one sentence, if a route is not in place. Running it again
changes nothing. Standard library only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import option_table
import sbom
from sm121_patch import PatchError, engine

HERE = Path(__file__).resolve().parent
MOE_CONFIGS = Path("model_executor/layers/fused_moe/configs")


def installed_root() -> Path:
    """The directory that holds the installed vllm package, found without importing it."""
    spec = importlib.util.find_spec("vllm")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise PatchError(
            f"vllm is not installed for {sys.executable}: build on an image that has it, or give --root."
        )
    return Path(places[0]).resolve().parent


def copy_configs(source: Path, package: Path) -> list[str]:
    """Copy the tuned files into the package; vLLM accepts integer keys and triton_version, nothing else."""
    target = package / MOE_CONFIGS
    if not target.is_dir():
        raise PatchError(
            f"{target} is missing: this vLLM keeps its MoE configurations elsewhere; adapt install_patch.py."
        )
    copied = []
    for path in sorted(source.glob("E=*.json")):
        try:
            keys = set(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise PatchError(f"{path} is not JSON ({error}): fix or remove it.") from None
        unknown = sorted(key for key in keys - {"triton_version"} if not key.isdigit())
        if unknown:
            raise PatchError(
                f"{path} has the key {unknown[0]!r}, which vLLM cannot read: keys must be batch sizes."
            )
        shutil.copyfile(path, target / path.name)
        (target / path.name).chmod(0o644)
        copied.append(path.name)
    if not copied:
        raise PatchError(f"{source} has no E=….json file: the build context is incomplete.")
    return copied


def link_package(link: Path, package: Path) -> None:
    """Make `link` a symlink to the installed package."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    if link.exists():
        if link.resolve() == package.resolve():
            return
        raise PatchError(
            f"{link} exists and is not the installed vLLM ({package}): remove it from the base image."
        )
    link.symlink_to(package)


def write_options(root: Path, target: Path) -> None:
    """Write the table of options for the entry point, which reads arguments by their looks without one."""
    try:
        table = option_table.read(root)
    except (SyntaxError, ValueError, KeyError) as error:
        print(
            f"install_patch: the options of this vLLM cannot be read from its sources: {error!r}",
            file=sys.stderr,
        )
        table = ""
    target.write_text(table, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the layer; the exit status."""
    parser = argparse.ArgumentParser(
        description="Patch the installed vLLM and put the tuned configurations in place."
    )
    parser.add_argument("--root", type=Path, help="directory that holds vllm/ (default: the installed one)")
    parser.add_argument("--manifest", type=Path, default=HERE / "manifest.json")
    parser.add_argument("--link", type=Path, default=Path("/app/vllm/vllm"))
    parser.add_argument("--vllm-version", default="", help="fail unless this version is installed")
    options = parser.parse_args(argv)
    try:
        root = options.root.resolve() if options.root else installed_root()
        version = engine.vllm_version(root)
        if options.vllm_version and options.vllm_version != version:
            raise PatchError(
                f"{root} has vLLM {version}, not {options.vllm_version}: check the base image's digest."
            )
        engine.apply(root, options.manifest)
        if not engine.plan(root).in_place():
            raise PatchError(
                f"The routes in {root} are not in place after apply: the file system did not keep them."
            )
        copied = copy_configs(HERE / "configs", root / "vllm")
        link_package(options.link, root / "vllm")
        write_options(root, options.manifest.with_name("serve_options.txt"))
        listed = sbom.write(
            options.manifest.with_name("sbom.cdx.json"), options.manifest, HERE / "wheels.json"
        )
    except PatchError as error:
        print(f"install_patch: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"install_patch: {error.filename} cannot be written ({error.strerror}): run as root.",
            file=sys.stderr,
        )
        return 2
    print(
        f"install_patch: vLLM {version}: routes in place, {len(copied)} MoE configuration(s), "
        f"{options.manifest}, SBOM of {listed} components"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
