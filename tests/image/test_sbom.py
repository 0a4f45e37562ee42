"""The bill of materials: right by CycloneDX's own schema, complete, the same bytes each time."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
import sbom

from helpers.cyclonedx import valid

MANIFEST = {
    "patch_version": "1",
    "vllm_version": "0.33.0",
    "routes": [
        {
            "name": "linear",
            "state": "patched",
            "file": "vllm/a.py",
            "function": "choose",
            "sha256_before": "1" * 64,
            "sha256_after": "2" * 64,
        },
    ],
}
STATUS = """Package: libc6
Status: install ok installed
Architecture: arm64
Version: 2.39-0ubuntu8.6

Package: gone
Status: deinstall ok config-files
Version: 1

Package: g++
Status: install ok installed
Architecture: arm64
Version: 4:13.2.0-7ubuntu1
Description: compiler
 Package: not-a-field
"""


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "os-release").write_text('NAME="Ubuntu"\nID=ubuntu\n')
    monkeypatch.setattr(sbom, "DPKG_STATUS", tmp_path / "status")
    monkeypatch.setattr(sbom, "OS_RELEASE", tmp_path / "os-release")
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    version = importlib.metadata.version("pytest")
    wheels = {
        "PyTest": {"version": version, "sha256": "a" * 64},
        "pluggy": {"version": "0", "sha256": "b" * 64},
    }
    (tmp_path / "wheels.json").write_text(json.dumps(wheels))
    arguments = (tmp_path / "manifest.json", tmp_path / "wheels.json")
    count = sbom.write(tmp_path / "sbom.cdx.json", *arguments)
    sbom.write(tmp_path / "again.cdx.json", *arguments)
    assert (tmp_path / "sbom.cdx.json").read_bytes() == (tmp_path / "again.cdx.json").read_bytes()
    made = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert len(made["components"]) == count
    return made


def test_valid(document: Any) -> None:
    valid(document)


def test_components(document: Any) -> None:
    by_purl = {item["purl"]: item for item in document["components"]}
    pytest_item = by_purl[f"pkg:pypi/pytest@{importlib.metadata.version('pytest')}"]
    assert pytest_item["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    pluggy = by_purl[f"pkg:pypi/pluggy@{importlib.metadata.version('pluggy')}"]
    assert "hashes" not in pluggy, "a wheel of another version is not what is installed"
    assert "pkg:deb/ubuntu/libc6@2.39-0ubuntu8.6?arch=arm64" in by_purl
    assert "pkg:deb/ubuntu/g%2B%2B@4%3A13.2.0-7ubuntu1?arch=arm64" in by_purl
    assert not any("gone" in purl or "not-a-field" in purl for purl in by_purl)


def test_vllm_says_that_it_was_changed() -> None:
    component = {"name": "vllm", "purl": "pkg:pypi/vllm@0.33.0", "version": "0.33.0", "type": "library"}
    sbom.note_patches([component], MANIFEST)
    notes = component["pedigree"]["notes"]  # type: ignore[index]
    assert "vllm/a.py choose() sha256 " + "1" * 64 + " -> " + "2" * 64 in notes
    valid(sbom.document([component], MANIFEST))
