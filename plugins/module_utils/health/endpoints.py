"""Checks of the server's endpoints: it is alive, it lists the model, and it completes a prompt. Pure."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Reply
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import mask
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import Replies

HEALTH, MODELS, COMPLETION = (Check("", name) for name in ("health", "models", "completion"))


def endpoint_checks(replies: Replies, wanted: Wanted) -> list[Finding]:
    """One finding per endpoint; what was not requested is skipped with the reason."""
    if not wanted.serves:
        return [check.skipped("checked on the replica's head") for check in (HEALTH, MODELS, COMPLETION)]
    if replies.health is None or replies.health.status != 200:
        skipped = "not checked: /health does not answer 200"
        return [health_check(replies.health, wanted), MODELS.skipped(skipped), COMPLETION.skipped(skipped)]
    models = models_check(replies, wanted)
    if replies.completion is None:
        refused = replies.models is not None and replies.models.status in (401, 403)
        reason = "not checked: the API key was refused" if refused else "not checked: no model"
        completion = COMPLETION.skipped(reason)
    else:
        completion = completion_check(replies.completion, wanted)
    return [health_check(replies.health, wanted), models, completion]


def health_check(reply: Reply | None, wanted: Wanted) -> Finding:
    """Whether /health answers 200."""
    if reply is not None and reply.status == 200:
        return HEALTH.passed(f"200 in {reply.seconds * 1000:.0f} ms")
    answer = (reply.error or reply.status) if reply else "not requested"
    return HEALTH.failed(
        f"/health on port {wanted.port}: {answer}",
        remedy=f"Read journalctl -u {wanted.unit}; systemctl restart {wanted.unit} if it hangs.",
    )


def models_check(replies: Replies, wanted: Wanted) -> Finding:
    """Whether /v1/models lists the served name."""
    reply, names = replies.models or Reply(0, "", 0.0, "not requested"), replies.names
    if reply.status in (401, 403):
        remedy = "Give the key that the server was started with (dgx_vllm_api_key)."
        return MODELS.failed(f"/v1/models refused the API key ({reply.status})", remedy=remedy)
    model = replies.model(wanted.model)
    if model in names:
        return MODELS.passed(", ".join(names))
    listed = ", ".join(names) or reply.error or f"status {reply.status}, no models"
    return MODELS.failed(
        f"/v1/models lists {listed}" + (f", not {model}" if model and names else ""),
        remedy=f"Check that port {wanted.port} belongs to {wanted.unit} (ss -ltnp); see dgx_vllm_served_model_names.",
    )


def completion_check(reply: Reply, wanted: Wanted) -> Finding:
    """Whether a completion has at least one token."""
    remedy = (
        f"Read journalctl -u {wanted.unit}; if the server hangs, systemctl restart {wanted.unit};"
        " a first request that compiles kernels may need a larger dgx_vllm_completion_timeout."
    )
    if reply.status != 200:
        found = reply.error or f"status {reply.status}: {mask(reply.body, [wanted.api_key])[:200]}"
        return COMPLETION.failed(found, remedy=remedy)
    data = reply.json()
    data = data if isinstance(data, dict) else {}
    choices = data.get("choices") or [{}]
    tokens = (data.get("usage") or {}).get("completion_tokens") or 0
    if not isinstance(tokens, int) or tokens < 1:
        return COMPLETION.failed(f"200 without a token: {reply.body[:200]}", remedy=remedy)
    text = str((choices[0] or {}).get("text", "")).strip()
    return COMPLETION.passed(f"{tokens} tokens in {reply.seconds * 1000:.0f} ms: {text!r}")
