"""The whole check, with a faked node and a real HTTP server that answers like vLLM."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.examine import examine
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container, Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Node
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import cdi

IMAGE = "sha256:" + "a" * 64


def check(mode: str, node: Any, vllm: Any, **wanted: Any) -> dict[str, Any]:
    """One check against the fakes."""
    given = {"host": "", "port": vllm.port, "completion_timeout": 2.0, "image_id": IMAGE, **wanted}
    return examine(mode, Wanted(**given), node)


def full(node: Any, vllm: Any, **wanted: Any) -> dict[str, Any]:
    """Every check."""
    return check("full", node, vllm, **wanted)


def probe(node: Any, vllm: Any, **wanted: Any) -> dict[str, Any]:
    """How far the service is."""
    return check("probe", node, vllm, **wanted)


def statuses(result: dict[str, Any]) -> dict[str, str]:
    """Check -> status."""
    return {row["check"]: row["status"] for row in result["checks"]}


ALL = (
    *("unit", "image", "manifest", "moe_config_file", "record", "markers", "moe_config_loaded"),
    *("no_cutlass_error", "health", "models", "completion"),
)


def test_healthy(node: Any, vllm: Any) -> None:
    result = full(node, vllm)
    assert statuses(result) == dict.fromkeys(ALL, "pass")
    assert result["healthy"]
    assert result["ready"]
    assert result["phase"] == "serving"
    assert "healthy" in result["summary"]
    assert "3 tokens" in result["summary"]
    assert result["log_tail"] == []
    assert result["evidence"]["markers"] == ["linear", "moe"]
    body = next(body for method, _path, body in vllm.behaviour.requests if method == "POST")
    assert body["model"] == "qwen"
    assert 1 <= body["max_tokens"] <= 8


def test_every_command_reads_only(node: Any, vllm: Any) -> None:
    full(node, vllm)
    allowed = (
        ["systemctl", "show"],
        ["docker", "container", "inspect"],
        ["docker", "exec"],
        ["journalctl"],
        ["sh"],
    )
    assert all(any(words[: len(start)] == start for start in allowed) for words in node.commands)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda node, server: setattr(node, "inside", "OCI runtime exec failed: python3"), {"manifest"}),
        (lambda node, server: node.log.pop(1), {"markers"}),
        (lambda node, server: node.inside.update(records=[]), {"record"}),
        (lambda node, server: node.inside["records"][0].update(born=1), {"record"}),
        (lambda node, server: node.inside.update(shipped=[]), {"moe_config_file"}),
        (
            lambda node, server: node.log.append("No compiled cutlass_scaled_mm for CUDA"),
            {"no_cutlass_error"},
        ),
        (lambda node, server: node.container.update(Image="sha256:other"), {"image"}),
        (lambda node, server: setattr(server, "models", ["llama"]), {"models"}),
        (lambda node, server: setattr(server, "key", "sesame"), {"models"}),
        (lambda node, server: setattr(server, "tokens", 0), {"completion"}),
        (lambda node, server: setattr(server, "completion_status", 500), {"completion"}),
        (lambda node, server: setattr(server, "health", 503), {"health"}),
    ],
)
def test_each_failure_has_its_name_and_a_remedy(node: Any, vllm: Any, change: Any, failed: set[str]) -> None:
    change(node, vllm.behaviour)
    result = full(node, vllm, model="qwen")
    bad = {row["check"]: row["remedy"] for row in result["checks"] if row["status"] == "fail"}
    assert set(bad) == failed
    assert all(bad.values())
    assert not result["healthy"]
    assert result["evidence"] == {}
    assert result["log_tail"]
    assert all(name in result["summary"] for name in failed)


def test_a_hung_server_fails_the_completion_within_the_deadline(node: Any, vllm: Any) -> None:
    vllm.behaviour.hang = "/v1/completions"
    begun = time.monotonic()
    result = full(node, vllm, completion_timeout=0.4)
    assert time.monotonic() - begun < 3
    row = result["checks"][-1]
    assert (row["check"], row["status"]) == ("completion", "fail")
    assert "no answer within 0.4 s" in row["found"]


def test_a_unit_that_loads_has_not_failed(node: Any, vllm: Any) -> None:
    node.log = ["Starting to load model m...", "Loading safetensors checkpoint shards:  40% Completed | 2/5"]
    vllm.behaviour.health = 503
    result = probe(node, vllm)
    assert not result["ready"]
    assert not result["failed_unit"]
    assert result["phase"] == "loading weights"
    assert result["progress"] == "Loading safetensors checkpoint shards: 40%"
    assert "40%" in result["summary"]


@pytest.mark.parametrize(
    "log",
    [[], ["Starting to load model m..."], ["(APIServer) a front end that words its start in another way"]],
)
def test_ready_is_what_the_api_answers_whatever_the_log_says(node: Any, vllm: Any, log: list[str]) -> None:
    node.log = log
    assert probe(node, vllm)["ready"]
    vllm.behaviour.health = 503
    node.log = ["INFO:     Application startup complete."]
    assert not probe(node, vllm)["ready"]


def test_a_unit_that_waits_for_the_gpu_is_starting_and_says_what_for(node: Any, vllm: Any) -> None:
    """B3: activating (start-pre), with no process of its own yet."""
    begun = int((time.monotonic() - 40) * 1e6)
    node.unit.update(
        ActiveState="activating",
        SubState="start-pre",
        ExecMainStartTimestampMonotonic="0",
        InactiveExitTimestampMonotonic=str(begun),
    )
    node.log = ["[dgx-vllm] waits for up to 300 s: /dev/nvidia-uvm is missing"]
    vllm.behaviour.health = 503
    result = probe(node, vllm)
    assert (result["failed_unit"], result["ready"], result["phase"]) == (False, False, "starting")
    assert result["progress"] == "waits for up to 300 s: /dev/nvidia-uvm is missing"
    assert result["elapsed_s"] in (40, 41)


def test_a_refused_start_is_told_in_the_words_of_the_unit(node: Any, vllm: Any) -> None:
    """B5: systemd calls the unit inactive, with the result exec-condition."""
    node.unit.update(ActiveState="inactive", SubState="dead", Result="exec-condition")
    line = "[dgx-vllm] does not start: the machine died 2 times in a row while this release was starting. Try again."
    node.journal = [{"MESSAGE": line, "_SYSTEMD_INVOCATION_ID": "run2"}]
    result = probe(node, vllm)
    assert result["failed_unit"]
    assert "The unit does not start: the machine died 2 times in a row" in result["summary"]


def test_a_driver_that_waits_for_a_reboot_is_a_warning(
    node: Any, vllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6: the server goes on, and its next start would fail."""
    versions = {"loaded": "580.95.05", "installed": "580.126.09"}
    monkeypatch.setattr(cdi, "driver", lambda root: versions)
    result = full(node, vllm)
    assert result["healthy"]
    assert statuses(result)["driver"] == "warn"
    assert "warnings: driver" in result["summary"]


def test_the_release_that_started_the_container_is_told(node: Any, vllm: Any) -> None:
    assert full(node, vllm)["release"] == ""
    node.container["Config"]["Labels"] = {"dgx-vllm.release": "r1"}
    assert full(node, vllm)["release"] == "r1"


def test_somebody_else_on_the_port_does_not_serve_the_model(node: Any, vllm: Any) -> None:
    vllm.behaviour.models = ["another"]
    row = next(row for row in full(node, vllm, model="qwen")["checks"] if row["check"] == "models")
    assert row["status"] == "fail"
    assert "belongs to dgx-vllm.service" in row["remedy"]


@pytest.mark.parametrize(
    "unit",
    [
        {"ActiveState": "failed", "SubState": "failed", "Result": "start-limit-hit"},
        {
            "ActiveState": "activating",
            "SubState": "auto-restart",
            "Result": "exit-code",
            "ExecMainStatus": "1",
        },
        {"ActiveState": "inactive", "SubState": "dead"},
        {"NRestarts": "3"},
    ],
)
def test_a_failed_unit_is_explained_from_the_run_that_failed(
    node: Any, vllm: Any, unit: dict[str, str]
) -> None:
    node.unit.update(unit)
    ended = "NRestarts" not in unit
    node.journal = [
        {"_SYSTEMD_INVOCATION_ID": "run0", "MESSAGE": "RuntimeError: No compiled cutlass_scaled_mm"},
        {"_SYSTEMD_INVOCATION_ID": "run2" if ended else "run1", "MESSAGE": "OSError: [Errno 98] in use"},
        {"_SYSTEMD_INVOCATION_ID": "run2", "MESSAGE": "HF_TOKEN=verysecret"},
    ]
    result = probe(node, vllm, restarts_before=2)
    assert result["failed_unit"]
    assert result["phase"] == "failed"
    assert [item["id"] for item in result["findings"]] == ["port_in_use"]
    assert "dgx_vllm_port" in result["summary"]
    assert "verysecret" not in str(result)
    assert vllm.behaviour.requests == []


def test_an_older_restart_is_not_a_failure(node: Any, vllm: Any) -> None:
    node.unit["NRestarts"] = "3"
    assert full(node, vllm, restarts_before=3)["healthy"]


def test_a_queued_start_is_not_a_failure(node: Any, vllm: Any) -> None:
    node.unit.update({"ActiveState": "inactive", "SubState": "dead", "Job": "117"})
    assert not probe(node, vllm)["failed_unit"]


def test_no_unit(node: Any, vllm: Any) -> None:
    node.unit = {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
    result = probe(node, vllm)
    assert result["failed_unit"]
    assert not result["unit_exists"]
    assert "site.yml" in result["summary"]


def test_no_container(node: Any, vllm: Any) -> None:
    node.container = {}
    result = full(node, vllm)
    assert statuses(result)["image"] == "fail"
    assert statuses(result)["manifest"] == statuses(result)["record"] == statuses(result)["markers"] == "skip"
    assert "No such container" in result["summary"]


def test_the_log_names_the_cause_of_a_completion_that_fails(node: Any, vllm: Any) -> None:
    node.log.append("(EngineCore pid=9) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")
    vllm.behaviour.completion_status = 500
    summary = full(node, vllm)["summary"]
    assert "ran out of memory" in summary
    assert "engine dead" in summary


def test_the_start_of_the_log_may_come_from_docker(node: Any, vllm: Any) -> None:
    node.docker_log, node.log = node.log, ["GET /health 200"]
    assert full(node, vllm)["healthy"]
    assert statuses(full(node, vllm))["markers"] == "pass"


def test_a_marker_that_the_journal_has_lost_may_come_from_docker(node: Any, vllm: Any) -> None:
    """journald drops lines of a unit that writes too many at once."""
    node.docker_log = list(node.log)
    node.log.pop(2)
    assert statuses(full(node, vllm))["markers"] == "pass"


def test_evidence_of_the_same_run_stands_in_for_a_lost_log(node: Any, vllm: Any) -> None:
    evidence = full(node, vllm)["evidence"]
    assert set(evidence) == {"invocation_id", "known", "markers"}
    node.log = ["GET /health 200"]
    result = full(node, vllm, evidence=evidence)
    rows = {row["check"]: row for row in result["checks"]}
    assert rows["markers"]["status"] == rows["moe_config_loaded"]["status"] == "pass"
    assert "earlier check" in rows["markers"]["found"]
    assert result["evidence"] == evidence
    node.unit["InvocationID"] = "run3"
    result = full(node, vllm, evidence=evidence)
    assert statuses(result)["markers"] == "warn"
    assert statuses(result)["record"] == "pass"
    assert result["healthy"]
    assert "warnings: markers" in result["summary"]
    assert (result["evidence"]["invocation_id"], result["evidence"]["known"]) == ("run3", False)
    assert statuses(full(node, vllm, evidence=result["evidence"]))["markers"] == "warn"


@pytest.mark.parametrize("evidence", [{"markers": 3}, {"markers": None}, {"markers": [None]}, {"known": "x"}])
def test_evidence_that_is_spoilt_is_none(node: Any, vllm: Any, evidence: dict[str, Any]) -> None:
    node.log = ["GET /health 200"]
    given = {"invocation_id": "run2", "known": True, **evidence}
    assert full(node, vllm, evidence=given)["checks"]


def test_an_unknown_error_is_quoted(node: Any, vllm: Any) -> None:
    node.unit.update({"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"})
    node.journal = [
        {
            "_SYSTEMD_INVOCATION_ID": "run2",
            "MESSAGE": "(EngineCore pid=9) ValueError: Something nobody foresaw",
        },
        {"_SYSTEMD_INVOCATION_ID": "run2", "MESSAGE": "RuntimeError: Engine core initialization failed. See"},
    ]
    result = probe(node, vllm)
    assert result["root_error"] == "ValueError: Something nobody foresaw"
    assert "Something nobody foresaw." in result["summary"]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--moe-backend", "cutlass"], "cutlass"),
        (["--moe_backend=triton"], "triton"),
        (["--moe-backend"], ""),
        (["--moe-backend", "a", "--moe-backend=b"], "b"),
        (["--other"], None),
        (["--moe-b", "marlin"], "marlin"),
        (["--moe-backend", "cutlass", "--moe-backend=marlin"], "marlin"),
        (["--hf-overrides", '{"a":1}', "--moe-backend", "marlin"], "marlin"),
    ],
)
def test_options_of_the_container(words: list[str], value: Any) -> None:
    assert Container(True, "", {}, tuple(words)).option("--moe-backend") == value
    assert Container(True, "", {"VLLM_EXTRA_ARGS": " ".join(words)}).option("--moe-backend") == value


def test_class_f_short_forms_of_the_containers_options() -> None:
    found = Container(True, "", {"VLLM_EXTRA_ARGS": '-ep --x {"a": 1} -q=fp8 --no-enable-lora'})
    assert found.option("--enable-expert-parallel") == ""
    assert found.option("--quantization") == "fp8"
    assert found.option("--enable-lora") is None


def test_unreadable_extra_arguments_do_not_stop_the_check() -> None:
    assert Container(True, "", {"VLLM_EXTRA_ARGS": "'open"}).option("--x") is None


def test_nothing_is_asked_of_a_container_that_does_not_run(node: Any, vllm: Any) -> None:
    node.container["State"]["Running"] = False
    node.log = ["GET /health 200"]
    full(node, vllm)
    assert not [words for words in node.commands if words[:2] in (["docker", "exec"], ["docker", "logs"])]


def test_each_thing_is_read_once_and_the_log_after_the_requests(node: Any, vllm: Any) -> None:
    requests_before: list[int] = []

    def watched(argv: Any, timeout: float) -> Any:
        requests_before.append(len(vllm.behaviour.requests))
        return node(argv, timeout)

    full(watched, vllm)
    assert requests_before == [3] * len(node.commands), "GET /health, GET /v1/models and POST /v1/completions"
    assert len({tuple(words) for words in node.commands}) == len(node.commands)
    assert len([words for words in node.commands if words[:2] == ["docker", "exec"]]) == 1


@pytest.mark.parametrize(("loaded", "status"), [(True, "pass"), (False, "warn")])
def test_rules_that_are_gone_are_a_warning(
    loaded: bool, status: str, node: Any, vllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server serves all the same, so nothing is restarted for it; without the option there is no row."""
    monkeypatch.setattr(Node, "firewall", lambda self: loaded)
    result = full(node, vllm, firewall=True)
    assert result["healthy"]
    assert statuses(result)["firewall"] == status
    assert "firewall" not in statuses(full(node, vllm))
