"""The image's bill of materials: CycloneDX 1.6 JSON of what is really installed, written by the patch layer.

Ours because it is deterministic and works with the classic builder; the usual answers are syft and BuildKit.

Python distributions come from their metadata, with the sha256 of the wheel where wheel mode recorded one
(wheels.json), Debian packages from dpkg's status file. vLLM's entry says which of its files were patched. The same
image gives the same bytes: no time, and a serial number made from the content. Standard library only.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")
LONGEST_LICENSE = 100  # characters; some packages put the whole text in this field


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _licenses(metadata: Any) -> list[dict[str, Any]]:
    expression = metadata.get("License-Expression")
    if expression:
        return [{"expression": str(expression)}]
    name = str(metadata.get("License") or "").strip()
    if name and len(name) <= LONGEST_LICENSE and "\n" not in name:
        return [{"license": {"name": name}}]
    return []


def python_components(
    distributions: Iterable[importlib.metadata.Distribution], wheels: dict[str, dict[str, str]]
) -> list[dict[str, Any]]:
    """One component per installed distribution, sorted by name; the first on the path counts."""
    recorded = {_key(name): wheel for name, wheel in wheels.items()}
    found: dict[str, dict[str, Any]] = {}
    for distribution in distributions:
        name, version = distribution.metadata["Name"], distribution.version
        if not name or not version or _key(name) in found:
            continue
        purl = f"pkg:pypi/{_key(name)}@{quote(version, safe='.-~')}"
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
        }
        wheel = recorded.get(_key(name), {})
        if wheel.get("version") == version:
            component["hashes"] = [{"alg": "SHA-256", "content": wheel["sha256"]}]
        licenses = _licenses(distribution.metadata)
        if licenses:
            component["licenses"] = licenses
        found[_key(name)] = component
    return [found[key] for key in sorted(found)]


def debian_components(status: Path, os_release: Path) -> list[dict[str, Any]]:
    """One component per installed Debian package; none on a base without dpkg."""
    if not status.is_file():
        return []
    release = os_release.read_text(encoding="utf-8") if os_release.is_file() else ""
    match = re.search(r"^ID=\"?([\w.-]+)", release, re.MULTILINE)
    vendor = match.group(1) if match else "debian"
    components = []
    for paragraph in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", paragraph, re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields.get("Architecture", "all")
        purl = f"pkg:deb/{vendor}/{quote(name, safe='.-')}@{quote(version, safe='.-~')}?arch={architecture}"
        components.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    return sorted(components, key=lambda item: item["purl"])


def note_patches(components: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
    """Record in vLLM's component that its source was changed, and where."""
    changed = [
        f"{route['file']} {route['function']}() sha256 {route['sha256_before']} -> {route['sha256_after']}"
        for route in manifest["routes"]
        if route["state"] == "patched"
    ]
    for component in components:
        if changed and _key(component["name"]) == "vllm" and component["purl"].startswith("pkg:pypi/"):
            component["pedigree"] = {
                "patches": [{"type": "unofficial"}],
                "notes": f"dgx-vllm patch version {manifest['patch_version']}: " + "; ".join(changed),
            }


def document(components: list[dict[str, Any]], manifest: dict[str, Any]) -> dict[str, Any]:
    """The whole CycloneDX document."""
    content = json.dumps(components, sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "dgx-vllm",
                "name": "dgx-vllm",
                "version": manifest["vllm_version"],
                "properties": [{"name": "dgx-vllm:machine", "value": platform.machine()}],
            }
        },
        "components": components,
    }


def write(target: Path, manifest: Path, wheels: Path) -> int:
    """Write the bill of this machine to `target`; the number of components."""
    made = json.loads(manifest.read_text(encoding="utf-8"))
    recorded = json.loads(wheels.read_text(encoding="utf-8")) if wheels.is_file() else {}
    components = python_components(importlib.metadata.distributions(), recorded)
    components += debian_components(DPKG_STATUS, OS_RELEASE)
    note_patches(components, made)
    target.write_text(json.dumps(document(components, made), indent=1) + "\n", encoding="utf-8")
    return len(components)
