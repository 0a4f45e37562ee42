"""The checks of a node's health, in the order of the result: pure functions from what was read to findings.

`where` stays empty: the node does not know the name that the inventory has for it.
"""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.endpoints import endpoint_checks
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import (
    Container,
    Unit,
    Wanted,
    Watch,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import Reading
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.routing import known_log, routing_checks
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.cdi import reboot_pending

IN_CONTAINER = ("manifest", "moe_config_file", "record", "markers", "moe_config_loaded")


def service_checks(reading: Reading, wanted: Wanted) -> list[Finding]:
    """The checks of a probe: the unit and, in a replica, its watch."""
    unit = unit_check(reading.unit, reading.failed(wanted.restarts_before), wanted)
    return [unit, watch_check(reading.watch, wanted)] if reading.watch else [unit]


def full_checks(reading: Reading, wanted: Wanted) -> list[Finding]:
    """All checks; a service that has failed has no container to check."""
    findings = service_checks(reading, wanted)
    if reading.container is not None:
        findings.append(image_check(reading.container, wanted))
        findings += container_checks(reading, reading.container, wanted)
        findings += driver_checks(reading)
        findings += firewall_checks(reading)
    return findings + endpoint_checks(reading.replies, wanted)


def unit_check(unit: Unit, failed: bool, wanted: Wanted) -> Finding:
    """Whether systemd runs the unit."""
    check, name = Check("", "unit"), wanted.unit
    if unit.error:
        remedy = "systemd must run on the node: try systemctl is-system-running."
        return check.failed(unit.error, remedy=remedy)
    if not unit.exists:
        return check.failed(unit.describe(), remedy=f"Run site.yml --tags service to install {name}.")
    if failed:
        remedy = f"Read journalctl -u {name} on the node, fix the cause, then run systemctl restart {name}."
        return check.failed(unit.describe(), remedy=remedy)
    return check.passed(unit.describe())


def watch_check(watch: Watch, wanted: Wanted) -> Finding:
    """Whether the watch of the replica runs and has not given up."""
    check, name = Check("", "watch"), wanted.watch_unit
    if not watch.active:
        remedy = (
            f"Read journalctl -u {name}, then run systemctl restart {name}: without it no fault is noticed."
        )
        return check.failed(f"{name} is not active", remedy=remedy)
    if watch.gave_up:
        remedy = (
            f"Read journalctl -u {name} on the node that is named, fix the cause, then run site.yml again."
        )
        return check.failed(watch.describe(), remedy=remedy)
    return check.passed(watch.describe())


def image_check(container: Container, wanted: Wanted) -> Finding:
    """Whether the container runs the image it should."""
    check = Check("", "image")
    if container.error or not container.running:
        remedy = f"Run systemctl restart {wanted.unit}; docker ps must then list {wanted.container}."
        return check.failed(container.error or "the container is not running", remedy=remedy)
    if not wanted.image_id:
        return check.passed(f"{container.image_id} (no particular image was asked for)")
    if container.image_id != wanted.image_id:
        remedy = f"Run systemctl restart {wanted.unit}, or site.yml --tags service to render it again."
        found = f"the container runs {container.image_id} instead of {wanted.image_id}"
        return check.failed(found, remedy=remedy)
    return check.passed(container.image_id)


def driver_checks(reading: Reading) -> list[Finding]:
    """A warning while a reboot is pending: the server goes on, but its next container would not get the GPU."""
    if not reboot_pending(reading.driver):
        return []
    found = f"driver {reading.driver['installed']} is installed, and {reading.driver['loaded']} is loaded"
    reason = "the server cannot start again before a reboot"
    return [Check("", "driver").warned(found, reason, "Reboot the node when the service can be missed.")]


def firewall_checks(reading: Reading) -> list[Finding]:
    """A warning if the rules are gone: the server serves, and others reach its ports."""
    if reading.firewall is None:
        return []
    check = Check("", "firewall")
    if reading.firewall:
        return [check.passed("the rules are loaded")]
    reason = "others reach the ports; something flushed or changed `nft list table inet dgx_vllm`"
    return [
        check.warned("the rules are not loaded as they were kept", reason, "Run site.yml --tags firewall.")
    ]


def container_checks(reading: Reading, container: Container, wanted: Wanted) -> list[Finding]:
    """What the image, its processes' records and the log say of the patch and the MoE config."""
    if not container.running:
        return _skipped("not checked: the container is not running")
    log = known_log(reading, wanted.evidence)
    return routing_checks(container, reading.inside, log, wanted.moe_config_required)


def _skipped(reason: str) -> list[Finding]:
    return [Check("", name).skipped(reason) for name in IN_CONTAINER]
