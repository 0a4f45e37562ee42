"""The schema that a software bill of materials must satisfy."""

from __future__ import annotations

import json
from typing import Any

import pytest


def valid(document: Any) -> None:
    """Check against CycloneDX 1.6's schema, which cyclonedx-python-lib brings."""
    validation = pytest.importorskip("cyclonedx.validation.json", reason="pip install cyclonedx-python-lib")
    schema = pytest.importorskip("cyclonedx.schema")
    pytest.importorskip("jsonschema", reason="pip install cyclonedx-python-lib[json-validation]")
    found = validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert found is None, str(found)
