"""Making a model present on a node: ask the hub, fetch with `hf download` in the image, verify, record.

The image brings huggingface_hub's `hf` (vLLM 0.33 wants huggingface_hub >= 1.31), so the node needs no Python
package. The token reaches the container through the environment of the docker client, never through argv.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import TIMED_OUT, Completed, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.cache import (
    Cache,
    read_record,
    record_path,
    write_record,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.hub import HubError, Listing, list_files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain

CONTAINER = "dgx-vllm-download"
RESERVE = 0.05
"""Part of the missing bytes that must be free on top of them."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class ModelError(Exception):
    """The model could not be made present; the text says why and how to mend it."""


class Request(NamedTuple):
    """What to make present and how. `timeout` in seconds."""

    model: str
    revision: str = "main"
    models_dir: str = "/var/lib/dgx-vllm/models"
    image: str = ""
    endpoint: str = "https://huggingface.co"
    token: str = ""
    timeout: float = 14400.0
    data_dir: str = "/var/lib/dgx-vllm"


class Outcome(NamedTuple):
    """What was done."""

    changed: bool
    commit: str
    bytes_fetched: int
    snapshot: str
    msg: str


Docker = Callable[[Sequence[str], "Mapping[str, str]", float], Completed]
"""(docker's arguments, extra environment, limit in seconds) -> Completed. Tests pass a fake."""


def docker(arguments: Sequence[str], environment: Mapping[str, str], timeout: float) -> Completed:
    """Run the docker client with extra environment variables for at most `timeout` s."""
    return run(["docker", *arguments], timeout, environment)


def ensure(request: Request, check_mode: bool, client: Docker = docker) -> Outcome:
    """Make the model present and verified; ModelError otherwise. In check mode nothing is written or fetched.

    A recorded model whose files are all there is not asked for again, so an unchanged run needs no network;
    a branch
    such as main therefore stays at the commit that was fetched first.
    """
    cache = Cache(request.models_dir, request.model)
    record = record_path(request.data_dir, request.model, request.revision)
    known = read_record(record, request.model, request.revision)
    if known is not None and not cache.missing(known) and cache.ref(request.revision) == known.commit:
        return Outcome(False, known.commit, 0, cache.snapshot(known.commit), "present and verified before")
    try:
        listing = list_files(request.endpoint, request.model, request.revision, request.token)
    except HubError as error:
        here = cache.offline_listing(request.revision) if error.unreachable else None
        if here is not None:
            return _adopt(request, cache, here, record, check_mode, f"the hub could not be asked: {error}")
        if check_mode and error.unreachable:
            return Outcome(True, "", 0, "", f"would be fetched, but {error}")
        raise ModelError(str(error)) from error
    missing = cache.missing(listing)
    wanted_bytes = sum(item.size for item in missing)
    if not missing and not cache.damaged(listing):
        return _adopt(
            request, cache, listing, record, check_mode, "present, verified against the hub", checked=True
        )
    if check_mode:
        text = f"would fetch {len(missing)} files, {_gib(wanted_bytes)}"
        return Outcome(True, listing.commit, 0, cache.snapshot(listing.commit), text)
    _refuse_full_disk(request, max(0, wanted_bytes - cache.partial_bytes()))
    listing = _fetch_and_verify(request, cache, listing, client)
    write_record(record, request.model, request.revision, listing)
    text = f"fetched {_gib(wanted_bytes)} and verified {len(listing.files)} files"
    return Outcome(True, listing.commit, wanted_bytes, cache.snapshot(listing.commit), text)


def _adopt(
    request: Request,
    cache: Cache,
    listing: Listing,
    record: str,
    check_mode: bool,
    how: str,
    checked: bool = False,
) -> Outcome:
    """Record a model that is already there, after its content was verified."""
    bad = [] if checked else cache.damaged(listing)
    if bad:
        raise ModelError(
            f"{bad[0].name} of {request.model} in {cache.folder} is damaged ({bad[0].reason}), and {how}"
            " Copy that file again, or give the node access to the hub."
        )
    if not check_mode:
        cache.set_ref(request.revision, listing.commit)
        write_record(record, request.model, request.revision, listing)
    return Outcome(True, listing.commit, 0, cache.snapshot(listing.commit), how)


def _fetch_and_verify(request: Request, cache: Cache, listing: Listing, client: Docker) -> Listing:
    """Fetch; verify; a damaged file is removed and fetched once more."""
    os.makedirs(request.models_dir, exist_ok=True)
    for attempt in (1, 2):
        for item in cache.damaged(listing):
            cache.remove(listing.commit, item.name)
        _stop_earlier(client)
        cache.remove_orphans()
        _fetch(request, client)
        moved = cache.ref(request.revision)
        if moved and moved != listing.commit:
            listing = _relist(request, moved)
        bad = cache.damaged(listing)
        if not bad:
            cache.set_ref(request.revision, listing.commit)
            return listing
        if attempt == 2:
            raise ModelError(
                f"{bad[0].name} of {request.model} is still wrong after two downloads ({bad[0].reason}):"
                " check the disk and the proxy or mirror between the node and the hub."
            )
    raise AssertionError("not reached")


def _relist(request: Request, commit: str) -> Listing:
    try:
        return list_files(request.endpoint, request.model, commit, request.token)
    except HubError as error:
        raise ModelError(str(error)) from error


def _stop_earlier(client: Docker) -> None:
    client(["rm", "--force", CONTAINER], {}, 60.0)


def _fetch(request: Request, client: Docker) -> None:
    image = client(["image", "inspect", "--format", "{{.Id}}", request.image], {}, 30.0)
    if image.rc != 0:
        raise ModelError(
            f"The image {request.image or '(none)'} that brings the download tool cannot be used"
            f" ({image.complaint}): run site.yml --tags image first."
        )
    environment = {"HF_ENDPOINT": request.endpoint.rstrip("/")}
    if request.token:
        environment["HF_TOKEN"] = request.token
    passed = [*environment, *(name for name in PROXIES if os.environ.get(name))]
    arguments = [
        "run",
        "--rm",
        "--pull",
        "never",
        "--name",
        CONTAINER,
        "--network",
        "host",
        "--cap-drop",
        "ALL",
    ]
    arguments += [
        "--security-opt",
        "no-new-privileges",
        "--env",
        "HF_HOME=/models",
        "--env",
        "HF_HUB_OFFLINE=0",
    ]
    arguments += ["--env", "HF_HUB_DISABLE_PROGRESS_BARS=1", "--env", "HF_HUB_DISABLE_TELEMETRY=1"]
    for name in passed:
        arguments += ["--env", name]
    arguments += ["--volume", f"{request.models_dir}:/models", "--entrypoint", "hf", request.image]
    arguments += ["download", request.model, "--revision", request.revision]
    done = client(arguments, environment, request.timeout)
    if done.rc == TIMED_OUT:
        _stop_earlier(client)
        raise ModelError(
            f"{request.model} was not fetched within {request.timeout:g} s: run site.yml --tags model again, the files"
            " that are complete are kept, or raise dgx_vllm_model_download_timeout."
        )
    if done.rc != 0:
        told = (done.stdout + "\n" + done.stderr).replace(request.token or "\0", "***")
        known = explain(told)
        reason = known[0].text if known else "Run it again, the files that are complete are kept."
        last = Completed(done.rc, "", told).complaint[:300]
        raise ModelError(f"Fetching {request.model} failed with {done.rc} ({last}): {reason}")


def _refuse_full_disk(request: Request, wanted: int) -> None:
    place = request.models_dir
    while not os.path.exists(place):
        place = os.path.dirname(place)
    free, needed = shutil.disk_usage(place).free, int(wanted * (1 + RESERVE))
    if free < needed:
        raise ModelError(
            f"The disk of {request.models_dir} has {_gib(free)} free and {request.model} needs"
            f" {_gib(needed)}:"
            " free space there or set dgx_vllm_models_dir to a larger disk."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
