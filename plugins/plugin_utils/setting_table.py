"""What every public variable of the role may hold, in one table."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve.kinds import (
    HOST,
    LONGEST_ITEM,
    MODEL,
    PARTS,
    PORT,
    SEQUENCES,
    SHARE,
    SWITCH,
    Kind,
    Test,
    choice,
    decimal,
    fits,
    items,
    limits,
    text,
    unwritable,
    whole,
)

_VAULT = ("EncryptedString", "AnsibleVaultEncryptedUnicode")


def _is_ipv4(value: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(value)) == value
    except ValueError:
        return False


def _is_network(value: str) -> bool:
    try:
        return bool(ipaddress.ip_network(value, strict=False))
    except ValueError:
        return False


def _is_reader(value: str) -> bool:
    try:
        return bool(ipaddress.IPv4Network(value))
    except ValueError:
        return False


def _each(expected: str, test: Test) -> Kind:
    return Kind("list", f"a list, each item {expected}", of=text(expected, empty=False, test=test))


_FREEZES = "because a GB10 that runs out of unified memory freezes with everything on it"
_PATH = text("an absolute path without a colon, where Docker splits it", "/[^:]*")
_FOLDER = _PATH._replace(type="path", empty=False)
_FILE = text("a path of a file, or to nothing")
_PARSER = text("a name that vLLM knows, or to nothing", r"[A-Za-z0-9_][\w.-]*")
_KEY = text("a key of visible ASCII characters without spaces, or to nothing", r"[!-~]+")
_NAME = text("a name in quotes, of letters, digits and . _ : - between them", r"[A-Za-z0-9_][\w.:-]*")
_URL = text("an address such as https://example.com/path", r"[a-z][a-z0-9+.-]*:[!-~]+")
_VERSION = text("a version of a Debian package in quotes, or to nothing", r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")
_FINGERPRINT = text("40 hexadecimal digits, copied from the publisher", r"(?:[0-9A-Fa-f] *){40}")
_IMAGE = text("the name of an image", r"(?!-)[!-~]+")
_SIZE = text("a size in quotes, such as 16g", r"[1-9][0-9]*(?:\.[0-9]+)?(?:[kmgtKMGT]i?)?[bB]?")
_SECONDS = whole(1, 604800, "a number of seconds")
_WORDS = items("a text or a number", numbers=True)
_PATTERNS = items("a pattern that does not begin with -", "(?!-).+")
_VALUE = text("a text or a number")._replace(ends=True, numbers=True, longest=LONGEST_ITEM)
_ENVIRONMENT = Kind("dict", "a dictionary of NAME: value", of=_VALUE)

WATCH_LIMITS = {
    "peer_grace": decimal(5, 3600),
    "stall": decimal(10, 86400),
    "probe_interval": decimal(5, 86400),
    "probe_deadline": decimal(1, 3600),
    "probe_failures": whole(1, 1000),
    "start_timeout": decimal(60, 86400),
    "backoff": decimal(1, 3600),
    "backoff_limit": decimal(1, 86400),
    "failure_limit": whole(1, 1000),
    "failure_window": decimal(60, 604800),
}
"""Limits of the watch that may be given; its own defaults stand in its replica_watch/model.py."""

THRESHOLDS = {
    "mtu": whole(1280, 9978, "bytes"),
    "speed_mbit": whole(1000, 800000),
    "pcie_width": whole(1, 32, "lanes"),
    "rail_gbits": decimal(0.01, 800),
    "degraded_gbits": decimal(0.001, 800),
    "port_gbits": decimal(0.01, 1600),
    "busbw_gbytes": decimal(0.001, 200),
    "tcp_busbw_gbytes": decimal(0.0001, 200),
    "rdma": SWITCH,
}

TABLE: dict[str, Kind] = {
    "state": choice("present", "absent"),
    "model": MODEL._replace(empty=True),
    "model_revision": text("a branch, tag or commit in quotes", r"(?!-)[!-~]+"),
    "models_dir": _FOLDER,
    "model_include": _PATTERNS,
    "model_exclude": _PATTERNS,
    "model_environment": _ENVIRONMENT,
    "model_download_timeout": _SECONDS,
    "model_stall_timeout": _SECONDS,
    "model_verify": SWITCH,
    "hf_endpoint": text("an address such as https://huggingface.co", r"https?://[^\s/@]+(?:/[!-~]*)?", False),
    "hf_token": _KEY,
    "host": HOST,
    "port": PORT,
    "api_key": _KEY,
    "served_model_names": items("a name that does not begin with -", "(?!-).+"),
    "tensor_parallel_size": PARTS,
    "max_model_len": whole(0, 1_000_000_000),
    "max_num_seqs": SEQUENCES._replace(low=0, expected="a whole number from 0 to 1000000"),
    "gpu_memory_utilization": SHARE._replace(high=0.9, expected=f"a fraction up to 0.9, {_FREEZES}"),
    "kv_cache_memory_bytes": whole(0, 2**40, "bytes"),
    "kv_cache_dtype": text("a data type such as auto or fp8", r"[A-Za-z0-9_][\w.-]*", empty=False),
    "tool_call_parser": _PARSER,
    "reasoning_parser": _PARSER,
    "extra_args": _WORDS,
    "extra_env": _ENVIRONMENT,
    "fp8_linear": choice("torch", "auto"),
    "fp8_moe": choice("triton", "auto"),
    "tuned_config_dir": _PATH,
    "replica": _NAME,
    "rank": whole(-1, 1023),
    "pipeline_parallel_size": PARTS,
    "executor": choice("mp", "ray"),
    "master_port": PORT,
    "ray_port": whole(1, 65528, "a port, because Ray also uses the next seven,"),
    "ray_dashboard_port": PORT,
    "control_address": text("an IPv4 address such as 192.0.2.11", test=_is_ipv4),
    "watch_port": PORT,
    "watch_limits": limits(**WATCH_LIMITS),
    "watch_readers": _each("an IPv4 address or a whole network, as 192.0.2.7 or 192.0.2.0/28", _is_reader),
    "fabric_kind": choice("direct", "switch", "ring"),
    "fabric_prefix": text(
        "an IPv4 network, such as 198.51.100.0/24", r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}/[0-9]{1,2}"
    ),
    "fabric_addresses": items("an IPv4 address with a prefix length, such as 198.51.100.1/26", r"[0-9./]+"),
    "fabric_index": whole(-1, 2**22),
    "fabric_ports": whole(1, 2),
    "fabric_interfaces": items("the name of an interface", r"[A-Za-z_][\w.-]{0,14}"),
    "fabric_thresholds": limits(**THRESHOLDS),
    "fabric_manage": SWITCH,
    "fabric_renumber": SWITCH,
    "fabric_packages": items(
        "the name of a Debian package", r"[a-z0-9][a-z0-9+.-]*(?:[:=][A-Za-z0-9.+:~=-]+)?"
    ),
    "fabric_repo_url": _URL,
    "fabric_repo_key_url": _URL,
    "fabric_repo_key_fingerprint": _FINGERPRINT._replace(empty=True),
    "fabric_beside_server": SWITCH,
    "fabric_nccl": SWITCH,
    "fabric_json": _FILE,
    "firewall": SWITCH,
    "firewall_api_from": _each("a network or an address, as 192.0.2.0/24 or 2001:db8::/32", _is_network),
    "image_source": choice("build", "pull", "load"),
    "image": _IMAGE._replace(empty=True),
    "image_archive": text("an absolute path on the node, or to nothing", r"/.*"),
    "image_build_base": _IMAGE._replace(empty=False),
    "image_base_update": SWITCH,
    "image_timeout": _SECONDS,
    "image_build_mode": choice("wheel", "patch-only", "source"),
    "image_push": SWITCH,
    "registry_username": text("a name in quotes, or to nothing"),
    "registry_password": text("a text in quotes, or to nothing")._replace(ends=True),
    "docker_package": text("the name of a Debian package", r"[a-z0-9][a-z0-9+.-]+", empty=False),
    "docker_version": _VERSION,
    "docker_restart": SWITCH,
    "toolkit_version": _VERSION,
    "toolkit_repo_url": _URL._replace(empty=False),
    "toolkit_repo_key_url": _URL._replace(empty=False),
    "toolkit_repo_key_fingerprint": _FINGERPRINT._replace(empty=False),
    "gpu_access": choice("auto", "cdi", "runtime"),
    "service_enabled": SWITCH,
    "restart_delay": whole(1, 86400, "a number of seconds"),
    "restart_limit": whole(0, 1000),
    "restart_window": whole(1, 31536000, "a number of seconds"),
    "stop_timeout": whole(1, 86400, "a number of seconds"),
    "drop_page_cache": SWITCH,
    "cache_dir": _FOLDER,
    "container_memory": _SIZE,
    "container_shm_size": _SIZE._replace(empty=False),
    "container_pids_limit": whole(1, 2**22),
    "container_memlock": whole(-1, 2**50, "-1 or bytes"),
    "container_nofile": whole(1, 2**30),
    "container_extra_args": _WORDS,
    "preflight_accept": items("the name of a preflight check", ".+"),
    "preflight_json": _FILE,
    "driver_denied": items("a pattern of versions in quotes", ".+"),
    "min_free_docker_gib": whole(0, 1_000_000),
    "min_free_models_gib": whole(0, 1_000_000),
    "health_timeout": _SECONDS,
    "health_interval": whole(1, 3600, "a number of seconds"),
    "completion_timeout": whole(1, 86400, "a number of seconds"),
    "moe_config_required": SWITCH,
    "rollback_on_failure": SWITCH,
    "report_dir": text("a folder on the operator's machine, or to nothing"),
    "tune_budget": _SECONDS,
    "remove_weights": SWITCH,
}
"""Public variable (without dgx_vllm_) -> what it may hold, in the order of defaults/main.yml."""


def plain(value: Any) -> Any:
    """The text of a value that Ansible keeps encrypted, everything else as it is."""
    return str(value) if type(value).__name__ in _VAULT else value


def wrong(name: str, kind: Kind, value: Any, secret: bool = False) -> Iterator[str]:
    """One sentence per mistake in the value of the variable `name`; none shows a secret."""
    value = plain(value)
    if kind.type == "list":
        yield from _wrong_list(name, kind, value)
    elif kind.type == "dict":
        yield from _wrong_dict(name, kind, value)
    elif not fits(kind, value):
        problem = unwritable(kind, value) if isinstance(value, str) and kind.type in ("str", "path") else ""
        yield f"{name} {problem or _refusal(kind, value, secret)}."


def _refusal(kind: Kind, value: Any, secret: bool) -> str:
    if value is None:
        return f"has no value; set it to {kind.expected}, or remove the line"
    if isinstance(value, (list, tuple, Mapping)):
        return f"is a {'dictionary' if isinstance(value, Mapping) else 'list'}; set it to {kind.expected}"
    if not isinstance(value, (int, float, str)):
        return f"cannot be read, because its template failed; correct it, or set it to {kind.expected}"
    found = "not of the right form" if secret else shown(value)
    if isinstance(value, bool):
        found += ", which is yes or no"
    elif kind.type in ("str", "path") and not isinstance(value, str):
        found += ", a number, so write it in quotes"
    return f"is {found}; set it to {kind.expected}"


def shown(value: Any) -> str:
    """A value for a sentence, shortened."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    found = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return found if len(found) <= 80 else f"{found[:77]}…"


def _wrong_list(name: str, kind: Kind, value: Any) -> Iterator[str]:
    if not isinstance(value, (list, tuple)):
        yield f'{name} must be a list; write it as ["…"] or one item per line.'
        return
    assert kind.of is not None
    for item in value:
        yield from _wrong_item(name, "item", kind.of, item)


def _wrong_item(name: str, what: str, kind: Kind, item: Any) -> Iterator[str]:
    item = plain(item)
    if fits(kind, item):
        return
    problem = unwritable(kind, item) if isinstance(item, str) else ""
    if problem:
        yield f"{name} {problem}."
    else:
        yield f"{name} has the {what} {_kind_of(item)}; write {kind.expected}."


def _kind_of(item: Any) -> str:
    return shown(item) if isinstance(item, (str, int, float)) or item is None else type(item).__name__


def _wrong_dict(name: str, kind: Kind, value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{name} must be a dictionary; write it as NAME: value, one per line."
        return
    for key, item in value.items():
        if kind.keys is not None:
            known = kind.keys.get(key) if isinstance(key, str) else None
            if known is None:
                near = get_close_matches(str(key), kind.keys, n=1)
                hint = f"did you mean {near[0]}? Known are" if near else "write one of"
                yield f"{name} has {_key(key)}, which does not exist; {hint} {', '.join(kind.keys)}."
            else:
                yield from wrong(f"{name}.{key}", known, item)
        elif not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            yield f"{name} has {shown(key)}, which is not a valid name of an environment variable; rename it."
        elif kind.of is not None and item is not None:
            # The value may be a secret, so no sentence shows it.
            if isinstance(plain(item), str):
                problem = unwritable(kind.of, plain(item))
                if problem:
                    yield f"{name}.{key} {problem}."
            elif not fits(kind.of, item):
                yield f"{name}.{key} is not of the right form; set it to {kind.of.expected}."


def _key(key: Any) -> str:
    return key if isinstance(key, str) and key.isidentifier() else shown(key)
