"""The judgements of the health check: pure functions from what was read to pass, warn, fail or skip."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import MARKER_TEXT, LogFacts
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import (
    CUTLASS,
    DEFAULT_MOE_CONFIG,
    MARKERS_MISSING,
    REBUILD,
    remedy_of,
)

Check = dict[str, str]
"""{"check", "status": pass|warn|fail|skip, "found", "remedy"}."""

ROUTES = ("linear", "moe")
START_GONE = "the start of this run is no longer in the journal and no earlier check of this run recorded it"
RESTART = (
    "Restart the service at a quiet moment and run the check again, or keep more journal (SystemMaxUse)."
)


def check(name: str, status: str, found: str, remedy: str = "") -> Check:
    """One row of the result."""
    return {"check": name, "status": status, "found": found, "remedy": remedy}


def manifest_check(manifest: dict[str, Any], error: str) -> Check:
    """Whether the image's patch manifest says patched or upstream for every route."""
    if error:
        return check("manifest", "fail", f"the image has no readable patch manifest: {error}", REBUILD)
    states = _route_states(manifest)
    told = ", ".join(f"{name} {states.get(name, 'absent')}" for name in ROUTES)
    wrong = [name for name in ROUTES if states.get(name) not in ("patched", "upstream")]
    wrong += [
        name for name, state in states.items() if name not in ROUTES and state not in ("patched", "upstream")
    ]
    if wrong:
        return check("manifest", "fail", f"{told} (vLLM {manifest.get('vllm_version', 'unknown')})", REBUILD)
    return check("manifest", "pass", f"{told} (vLLM {manifest.get('vllm_version', 'unknown')})")


def markers_check(
    name: dict[str, Any],
    name_error: str,
    manifest: dict[str, Any],
    switches: dict[str, str],
    explicit: dict[str, str | None],
    facts: LogFacts,
    origin: str,
) -> Check:
    """Whether the log shows exactly the markers this model should print: a missing and an unexpected one
    both fail.

    A route prints none when its switch is `auto`, when a backend was chosen on the command line, or when the
    manifest
    says that upstream routes it already.
    """
    if name_error:
        remedy = (
            "Use an image of this project: it brings moe_config, which knows what this model should print."
        )
        return check("markers", "fail", f"what to expect is unknown: {name_error}", remedy)
    states = _route_states(manifest)
    expected: set[str] = set()
    why: list[str] = []
    for route in name.get("expected_markers") or []:
        backend = explicit.get(route)
        if switches.get(route) == "auto":
            why.append(f"{route} is switched to auto")
        elif backend is not None and backend not in ("", "auto"):
            why.append(f"--{route}-backend {backend} is set")
        elif states.get(route) == "upstream":
            why.append(f"{route} is routed by upstream")
        else:
            expected.add(str(route))
    seen = set(facts.markers)
    note = f" ({'; '.join(why)})" if why else ""
    if origin == "none":
        return check("markers", "warn", START_GONE, RESTART)
    source = " (recorded by an earlier check of this run)" if origin == "evidence" else ""
    missing, extra = sorted(expected - seen), sorted(seen - expected)
    if missing:
        lines = "; ".join(MARKER_TEXT.get(route, route) for route in missing)
        return check("markers", "fail", f"the log lacks: {lines}{source}{note}", remedy_of(MARKERS_MISSING))
    if extra:
        lines = "; ".join(MARKER_TEXT[route] for route in extra)
        remedy = "Check dgx_vllm_fp8_linear, dgx_vllm_fp8_moe and the backend arguments."
        return check(
            "markers", "fail", f"the log has what this model should not print: {lines}{note}", remedy
        )
    told = ", ".join(sorted(seen)) or "none, as this model should print none"
    return check("markers", "pass", f"{told}{source}{note}")


def config_checks(
    name: dict[str, Any], name_error: str, facts: LogFacts, origin: str, required: bool
) -> list[Check]:
    """Whether the MoE config file this model asks for is there, and whether vLLM loaded it."""
    bad = "fail" if required else "warn"
    if name_error:
        told = f"which file this model asks for is unknown: {name_error}"
        remedy = "Use an image of this project: it brings moe_config."
        return [check("moe_config_file", bad, told, remedy), check("moe_config_loaded", "skip", told)]
    wanted = name.get("file")
    if not wanted:
        told = str(name.get("reason") or "this model asks for no MoE config")
        return [check("moe_config_file", "skip", told), check("moe_config_loaded", "skip", told)]
    tune = (
        f"Measure one for this shape (moe_config tune) and put {wanted} into dgx_vllm_tuned_config_dir,"
        " or set dgx_vllm_moe_config_required to false to run without."
    )
    rows: list[Check] = []
    if name.get("found"):
        rows.append(check("moe_config_file", "pass", str(name["found"])))
    else:
        similar = ", ".join(str(item) for item in name.get("similar") or [])
        told = f"{wanted} is in none of {', '.join(name.get('searched') or []) or 'the searched folders'}"
        told += f"; for other shapes there is {similar}" if similar else ""
        rows.append(check("moe_config_file", bad, told, tune))
    loaded = facts.config_loaded
    source = " (recorded by an earlier check of this run)" if origin == "evidence" else ""
    if any(os.path.basename(path) == wanted for path in loaded):
        path = next(path for path in loaded if os.path.basename(path) == wanted)
        rows.append(check("moe_config_loaded", "pass", f"{path}{source}"))
    elif origin == "none":
        rows.append(check("moe_config_loaded", "warn", START_GONE, RESTART))
    elif loaded:
        told = f"vLLM loaded {', '.join(loaded)}, which is for another shape than {wanted}{source}"
        rows.append(check("moe_config_loaded", bad, told, tune))
    else:
        remedy = tune
        if name.get("found"):
            remedy = "Restart the service if the file is newer than its start; else check dgx_vllm_fp8_moe."
        told = f"the log has no 'Using configuration from' line for {wanted}{source}"
        rows.append(check("moe_config_loaded", bad, told, remedy))
    return rows


def log_checks(facts: LogFacts, origin: str, required: bool) -> list[Check]:
    """Whether the log is free of the default MoE config and of the CUTLASS error."""
    clean = check("", "skip", START_GONE) if origin == "none" else check("", "pass", "no such line")
    default, cutlass = dict(clean, check="no_default_moe_config"), dict(clean, check="no_cutlass_error")
    if facts.default_config:
        remedy = remedy_of(DEFAULT_MOE_CONFIG)
        default = check(default["check"], "fail" if required else "warn", facts.default_config[:300], remedy)
    if facts.cutlass_error:
        cutlass = check(cutlass["check"], "fail", facts.cutlass_error[:300], remedy_of(CUTLASS))
    return [default, cutlass]


def _route_states(manifest: dict[str, Any]) -> dict[str, str]:
    routes = manifest.get("routes")
    entries = routes if isinstance(routes, list) else []
    return {str(item.get("name")): str(item.get("state")) for item in entries if isinstance(item, dict)}
