"""The health of a served model on one node, as structured facts: `probe` while it loads, `full` once it
answers.

Healthy means a served token, not an active unit: vLLM's /health stays 200 while requests hang (seen with two
nodes
whose link was cut), and it says nothing of a route or a tuned config that is not in effect.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.checks import (
    Check,
    check,
    config_checks,
    log_checks,
    manifest_check,
    markers_check,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Http, make_http
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import LogFacts, mask, read_log
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Container, Node, Unit, Watch
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import Finding, explain, root_error
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text

HTTP_TIMEOUT = 10.0
TAIL_LINES = 40
IN_CONTAINER = ("manifest", "markers", "moe_config_file", "moe_config_loaded")
CONSEQUENCES = {"engine_failed", "default_moe_config"}
"""Findings that do not explain why a server ended."""
MANIFEST = "/opt/dgx-vllm/manifest.json"


class Wanted(NamedTuple):
    """What the caller expects of the service. Times in seconds."""

    unit: str = "dgx-vllm.service"
    container: str = "dgx-vllm"
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    model: str = ""
    model_path: str = ""
    tensor_parallel_size: int = 1
    image_id: str = ""
    moe_config_required: bool = True
    completion_timeout: float = 60.0
    fp8_linear: str = "torch"
    fp8_moe: str = "triton"
    restarts_before: int = -1
    serves: bool = True
    watch: str = ""
    watch_unit: str = "dgx-vllm-watch.service"


class Health:
    """One health check of one node."""

    def __init__(self, wanted: Wanted, evidence: dict[str, Any], node: Node, http: Http) -> None:
        self.wanted = wanted
        self.evidence = evidence
        self.node = node
        self.http = http

    def probe(self) -> dict[str, Any]:
        """How far the service is: cheap enough to be asked every few seconds."""
        unit = self.node.unit()
        watch = self.node.watch(self.wanted.watch_unit, self.wanted.watch) if self.wanted.watch else None
        failed = not unit.exists or self._failed(unit, watch)
        source, text = self.node.run_log(unit.invocation_id) if unit.exists else ("none", "")
        facts = read_log(text)
        ready = not failed and unit.active_state in ("active", "reloading") and self._answers(facts, watch)
        waits = watch is not None and watch.restarting
        phase = "failed" if failed else "serving" if ready else "restarting" if waits else facts.phase
        result: dict[str, Any] = {
            "ready": ready,
            "failed_unit": failed,
            "phase": phase,
            "progress": "" if failed else facts.progress,
            "elapsed_s": unit.elapsed_s,
            "invocation_id": unit.invocation_id,
            "n_restarts": watch.restarts if watch else unit.n_restarts,
            "unit_exists": unit.exists,
            "unit_state": f"{unit.describe()}; {watch.describe()}" if watch else unit.describe(),
            "log_source": source,
            "healthy": False,
            "checks": [self._unit_check(unit, failed), *([self._watch_check(watch)] if watch else [])],
            "findings": [],
            "root_error": "",
            "log_tail": [],
            "evidence": {},
        }
        if failed and unit.exists:
            self._explain(result, self.node.failed_log(unit))
        progress = f": {facts.progress}" if facts.progress else ""
        result["summary"] = (
            self._failure_text(result)
            if failed
            else f"{self.wanted.unit} is {phase}{progress} after {unit.elapsed_s} s"
        )
        return result

    def _failed(self, unit: Unit, watch: Watch | None) -> bool:
        """A unit of a replica may be down for a while, until its watch starts all of them together."""
        before = self.wanted.restarts_before
        if watch is None:
            return unit.failed(before)
        return watch.gave_up or (before >= 0 and watch.restarts > before)

    def _answers(self, facts: LogFacts, watch: Watch | None) -> bool:
        """Whether the server answers; a node without the API knows it from its watch, which asks the head's."""
        if watch and not watch.ready:
            return False
        if not self.wanted.serves:
            return True
        logged = facts.phase == "serving" or not facts.start_retained
        return logged and self.http("GET", "/health", HTTP_TIMEOUT, None).status == 200

    def full(self) -> dict[str, Any]:
        """Every check. The requests come first, so that what they bring into the log is judged too."""
        http_checks = self._http_checks()
        result = self.probe()
        unit = self.node.unit()
        if result["failed_unit"]:
            result["checks"] += http_checks
            return result
        box = self.node.container()
        facts, origin = self._facts(unit, box)
        checks: list[Check] = [*result["checks"], self._image_check(box)]
        name: dict[str, Any] = {}
        if not box.running:
            checks += [check(row, "skip", "not asked: the container is not running") for row in IN_CONTAINER]
        elif box.arguments[:1] == ["ray"]:
            checks += [
                check(row, "skip", "Ray brings the workers' lines to the head's log") for row in IN_CONTAINER
            ]
        else:
            name, name_error = self._moe_name(box)
            checks += self._routing_checks(box, name, name_error, facts, origin)
            checks += log_checks(facts, origin, self.wanted.moe_config_required)
        checks += http_checks
        result["checks"] = checks
        bad = [row for row in checks if row["status"] == "fail"]
        result["healthy"] = not bad
        result["expected"] = {"markers": name.get("expected_markers", []), "moe_config": name.get("file")}
        if bad:
            _source, text = self.node.run_log(unit.invocation_id)
            self._explain(result, text.splitlines())
            result["summary"] = self._failure_text(result)
        else:
            result["summary"] = self._success_text(checks)
            result["evidence"] = self._evidence(unit, box, facts, origin)
        return result

    def _unit_check(self, unit: Unit, failed: bool) -> Check:
        name = self.wanted.unit
        if unit.error:
            remedy = "systemd must run on the node: try systemctl is-system-running."
            return check("unit", "fail", unit.error, remedy)
        if not unit.exists:
            remedy = f"Run site.yml --tags service to install {name}."
            return check("unit", "fail", unit.describe(), remedy)
        if failed:
            remedy = f"Read journalctl -u {name} on the node, mend the cause, then systemctl restart {name}."
            return check("unit", "fail", unit.describe(), remedy)
        return check("unit", "pass", unit.describe())

    def _watch_check(self, watch: Watch) -> Check:
        name = self.wanted.watch_unit
        if not watch.active:
            remedy = (
                f"Read journalctl -u {name}, then systemctl restart {name}: without it no fault is noticed."
            )
            return check("watch", "fail", f"{name} is not active", remedy)
        if watch.gave_up:
            remedy = f"Read journalctl -u {name} on the node that is named, mend the cause, then run site.yml again."
            return check("watch", "fail", watch.describe(), remedy)
        return check("watch", "pass", watch.describe())

    def _image_check(self, box: Container) -> Check:
        wanted = self.wanted.image_id
        if box.error or not box.running:
            remedy = (
                f"Run systemctl restart {self.wanted.unit}; docker ps must then list {self.wanted.container}."
            )
            return check("image", "fail", box.error or "the container is not running", remedy)
        if not wanted:
            return check("image", "pass", f"{box.image_id} (no particular image was asked for)")
        if box.image_id != wanted:
            remedy = (
                f"Run systemctl restart {self.wanted.unit}, or site.yml --tags service to render it again."
            )
            return check("image", "fail", f"the container runs {box.image_id}, wanted is {wanted}", remedy)
        return check("image", "pass", box.image_id)

    def _routing_checks(
        self, box: Container, name: dict[str, Any], name_error: str, facts: LogFacts, origin: str
    ) -> list[Check]:
        wanted = self.wanted
        manifest, error = self.node.execute_json(["cat", MANIFEST], 20.0)
        switches = {"linear": wanted.fp8_linear, "moe": wanted.fp8_moe}
        explicit = {"linear": box.option("--linear-backend"), "moe": box.option("--moe-backend")}
        return [
            manifest_check(manifest, error),
            markers_check(name, name_error, manifest, switches, explicit, facts, origin),
            *config_checks(name, name_error, facts, origin, wanted.moe_config_required),
        ]

    def _moe_name(self, box: Container) -> tuple[dict[str, Any], str]:
        model = self.wanted.model_path or box.environment.get("MODEL", "")
        if not model:
            return {}, "no model is known to ask for"
        size = str(self.wanted.tensor_parallel_size)
        argv = ["python3", "-m", "moe_config", "name", "--json", "--model", model, "--tp", size]
        if box.option("--enable-expert-parallel") is not None:
            argv += ["--ep", size]
        revision = box.option("--revision")
        if revision:
            argv += ["--revision", revision]
        return self.node.execute_json(argv, 60.0)

    def _facts(self, unit: Unit, box: Container) -> tuple[LogFacts, str]:
        """The log's facts and where they come from: journal, docker, evidence or none."""
        source, text = self.node.run_log(unit.invocation_id)
        facts = read_log(text)
        if facts.start_retained:
            return facts, source
        if box.running:
            kept = read_log(self.node.container_log())
            if kept.start_retained:
                return kept, "docker"
        evidence = self.evidence
        same_run = unit.invocation_id and evidence.get("invocation_id") == unit.invocation_id
        if same_run and evidence.get("known"):
            markers = [str(item) for item in evidence.get("markers") or []]
            configs = [str(item) for item in evidence.get("config_loaded") or []]
            default = facts.default_config or evidence.get("default_config")
            known = facts._replace(markers=markers, config_loaded=configs, default_config=default)
            return known, "evidence"
        return facts, "none"

    def _evidence(self, unit: Unit, box: Container, facts: LogFacts, origin: str) -> dict[str, Any]:
        """What to record of this run; `known` is false when its log could not be read from the beginning."""
        return {
            "invocation_id": unit.invocation_id,
            "image_id": box.image_id,
            "known": origin != "none",
            "markers": facts.markers,
            "config_loaded": facts.config_loaded,
            "default_config": facts.default_config,
        }

    def _http_checks(self) -> list[Check]:
        wanted, where = self.wanted, f"port {self.wanted.port}"
        if not wanted.serves:
            return [
                check(name, "skip", "asked of the replica's head")
                for name in ("health", "models", "completion")
            ]
        alive = self.http("GET", "/health", HTTP_TIMEOUT, None)
        if alive.status != 200:
            found = f"/health on {where}: {alive.error or alive.status}"
            remedy = f"Read journalctl -u {wanted.unit}; systemctl restart {wanted.unit} if it hangs."
            skipped = "not asked: /health does not answer 200"
            rest = [check(name, "skip", skipped) for name in ("models", "completion")]
            return [check("health", "fail", found, remedy), *rest]
        rows = [check("health", "pass", f"200 in {alive.seconds * 1000:.0f} ms")]
        listing = self.http("GET", "/v1/models", HTTP_TIMEOUT, None)
        if listing.status in (401, 403):
            remedy = "Give the key the server was started with (dgx_vllm_api_key)."
            rows.append(check("models", "fail", f"/v1/models refused the API key ({listing.status})", remedy))
            return [*rows, check("completion", "skip", "not asked: the API key was refused")]
        data = listing.json()
        entries = data.get("data") if isinstance(data, dict) else None
        names = [str(item.get("id")) for item in entries or [] if isinstance(item, dict)]
        model = wanted.model or (names[0] if names else "")
        if listing.status != 200 or model not in names:
            told = ", ".join(names) or listing.error or f"status {listing.status}, no models"
            found = f"/v1/models lists {told}" + (f", not {model}" if model and names else "")
            remedy = (
                f"Check that {where} belongs to {wanted.unit} (ss -ltnp); see dgx_vllm_served_model_names."
            )
            return [
                *rows,
                check("models", "fail", found, remedy),
                check("completion", "skip", "not asked: no model"),
            ]
        rows.append(check("models", "pass", ", ".join(names)))
        rows.append(self._completion(model))
        return rows

    def _completion(self, model: str) -> Check:
        limit = self.wanted.completion_timeout
        body = {"model": model, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        remedy = (
            f"Read journalctl -u {self.wanted.unit}; if the server hangs, systemctl restart"
            f" {self.wanted.unit};"
            " a first request that compiles kernels may need a larger dgx_vllm_completion_timeout."
        )
        answer = self.http("POST", "/v1/completions", limit, body)
        if answer.status != 200:
            told = answer.error or f"status {answer.status}: {mask(answer.body, [self.wanted.api_key])[:200]}"
            return check("completion", "fail", told, remedy)
        data = answer.json()
        data = data if isinstance(data, dict) else {}
        choices = data.get("choices") or [{}]
        usage = data.get("usage") or {}
        tokens = usage.get("completion_tokens") or 0
        if not isinstance(tokens, int) or tokens < 1:
            return check("completion", "fail", f"200 without a token: {answer.body[:200]}", remedy)
        text = str((choices[0] or {}).get("text", "")).strip()
        found = f"{tokens} tokens in {answer.seconds * 1000:.0f} ms: {text!r}"
        return check("completion", "pass", found)

    def _explain(self, result: dict[str, Any], lines: list[str]) -> None:
        text = mask("\n".join(lines), [self.wanted.api_key])
        findings: list[Finding] = explain(text)
        result["findings"] = [dict(item._asdict()) for item in findings]
        result["root_error"] = root_error(text)
        result["log_tail"] = text.splitlines()[-TAIL_LINES:]

    def _failure_text(self, result: dict[str, Any]) -> str:
        bad = [row for row in result["checks"] if row["status"] == "fail"]
        causes = [
            f"{item['sentence']} {item['remedy']}"
            for item in result["findings"][:2]
            if not (self.wanted.watch and item["id"] in CONSEQUENCES)
        ]
        if result["root_error"] and {item["id"] for item in result["findings"]} <= CONSEQUENCES:
            causes.insert(0, f"{result['root_error'].rstrip('.')}.")
        if result["failed_unit"] and causes:
            return f"{self.wanted.unit} failed ({result['unit_state']}): {' '.join(causes)}"
        parts = [f"{row['check']}: {row['found'].rstrip('.')}. {row['remedy']}".strip() for row in bad]
        cause = f"The log says: {causes[0]} " if causes and self._serves_badly(bad) else ""
        return f"{self.wanted.unit} is not healthy. {cause}" + " ".join(parts)

    @staticmethod
    def _serves_badly(bad: list[Check]) -> bool:
        """Whether a check failed whose own remedy is only to read the log."""
        return any(row["check"] in ("image", "health", "completion") for row in bad)

    def _success_text(self, checks: list[Check]) -> str:
        warned = [row["check"] for row in checks if row["status"] == "warn"]
        wanted = "completion" if self.wanted.serves else "watch"
        token = next((row["found"] for row in checks if row["check"] == wanted), "")
        return f"{self.wanted.unit} is healthy, {token}" + (
            f"; warnings: {', '.join(warned)}" if warned else ""
        )


def key_in(env_file: str) -> str:
    """VLLM_API_KEY of a release's environment file, as Docker reads it; "" when there is none."""
    lines = read_text(Path(env_file)).splitlines() if env_file else []
    return next((line.partition("=")[2] for line in lines if line.startswith("VLLM_API_KEY=")), "")


def examine(mode: str, wanted: Wanted, evidence: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one health check on this node; `mode` is probe or full."""
    begun = time.monotonic()
    health = Health(
        wanted,
        evidence or {},
        Node(wanted.unit, wanted.container),
        make_http(wanted.host, wanted.port, wanted.api_key),
    )
    result = health.full() if mode == "full" else health.probe()
    result["took_ms"] = int((time.monotonic() - begun) * 1000)
    return result
