"""Making a model present on a node: ask the hub, fetch with `hf download` in the image, verify, record.

The image brings huggingface_hub's `hf` (vLLM 0.33 needs huggingface_hub >= 1.31), so the node needs no Python
package. The token reaches the container through the environment of the docker client, never through argv.

Why the client only fetches, and does not list and verify as well (looked at in huggingface_hub 2.4.0):
- `hf download --dry-run` prints rounded sizes ("1.5G", in its JSON too) and no commit, and counts a truncated file as
  complete.
- `hf cache verify` names a damaged file, which must be removed before it is fetched again, in prose only (its JSON
  output is empty then); it needs the hub, and reads with one thread.
- They came with huggingface_hub 1.0 and 1.1; images of older vLLM lack them.
A copied cache without a network needs the comparison of model.cache in any case, so it is the only one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import TIMED_OUT, Completed, run
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.cache import Cache
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.hub import (
    HubError,
    Listing,
    list_files,
    read_file,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import (
    Wanted,
    index_of,
    named_by,
    needed,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import weights, write_record
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain

CONTAINER = "dgx-vllm-download"
RESERVE = 0.05
"""Part of the missing bytes that must be free on top of them."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
CA_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name a file of the node, which the download's container needs too."""
LOOK = 10.0
"""Seconds between two looks at what a download has written."""


class ModelError(Exception):
    """The model could not be made present; the text says why and how to fix it."""


class Request(NamedTuple):
    """What to make present and how. `timeout` and `stall_timeout` in seconds."""

    model: str
    revision: str = "main"
    models_dir: str = "/var/lib/dgx-vllm/models"
    image: str = ""
    endpoint: str = "https://huggingface.co"
    token: str = ""
    timeout: float = 14400.0
    data_dir: str = "/var/lib/dgx-vllm"
    wanted: Wanted = Wanted()
    environment: Mapping[str, str] = {}
    """Variables of the download: proxies, certificates, huggingface_hub's own."""
    verify: bool = False
    """Compare the checksums of a recorded model again, too."""
    stall_timeout: float = 600.0


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
    a branch such as main therefore stays at the commit that was fetched first, also when it is verified again.
    """
    cache = Cache(request.models_dir, request.model)
    place = request.models_dir, request.data_dir
    here = weights(Path("/"), request.model, request.revision, *place, request.wanted)
    known = here["present"] and cache.ref(request.revision) == here["commit"]
    if known and not request.verify:
        return Outcome(False, here["commit"], 0, here["path"], "present and verified earlier")
    exact = request._replace(revision=here["commit"]) if known else request
    try:
        listing = _list(request, exact.revision)
    except HubError as error:
        return _without_hub(request, cache, check_mode, error)._replace(changed=not known)
    damaged = cache.missing(listing) or cache.damaged(listing)
    if not damaged:
        how = "present, verified against the hub"
        return _adopt(request, cache, listing, check_mode, how)._replace(changed=not known)
    wrong = {item.name for item in damaged}
    size = sum(item.size for item in listing.files if item.name in wrong)
    if check_mode:
        text = f"would fetch {len(wrong)} files, {_gib(size)}"
        return Outcome(True, listing.commit, 0, str(cache.snapshot(listing.commit)), text)
    _refuse_full_disk(request, max(0, size - cache.partial_bytes()))
    with _alone(request):
        listing = _fetch_and_verify(exact, cache, listing, client)
    text = f"fetched {_gib(size)} and verified {len(listing.files)} files"
    return _adopt(request, cache, listing, False, text, size)


def _list(request: Request, revision: str) -> Listing:
    """The wanted files of a revision; without the index all weights at the root count as the model's."""
    listing = list_files(request.endpoint, request.model, revision, request.token)
    sizes = {item.name: item.size for item in listing.files}
    index, named = index_of(sizes, request.wanted.load_format), None
    if index:
        try:
            named = named_by(read_file(request.endpoint, request.model, listing.commit, index, request.token))
        except HubError:
            named = None
    wanted = needed(sizes, named, request.wanted)
    if not wanted:
        raise ModelError(
            f"No file of {request.model} is left to fetch: correct dgx_vllm_model_include and dgx_vllm_model_exclude."
        )
    return Listing(listing.commit, [item for item in listing.files if item.name in wanted], len(sizes))


def _without_hub(request: Request, cache: Cache, check_mode: bool, error: HubError) -> Outcome:
    """A complete copy is verified and adopted if the hub gave no answer; else ModelError."""
    copy = cache.offline_listing(request.revision) if error.unreachable else None
    if copy is None:
        if check_mode and error.unreachable:
            return Outcome(True, "", 0, "", f"would be fetched, but {error}")
        raise ModelError(str(error)) from error
    how = f"the hub could not be asked: {error}"
    damaged = cache.damaged(copy)
    if damaged:
        raise ModelError(
            f"{damaged[0].name} of {request.model} in {cache.folder} is damaged ({damaged[0].reason}), and {how} "
            "Copy that file again, or give the node access to the hub."
        )
    return _adopt(request, cache, copy, check_mode, how)


def _adopt(
    request: Request, cache: Cache, listing: Listing, check_mode: bool, how: str, fetched: int = 0
) -> Outcome:
    """Record a model whose content was verified."""
    if not check_mode:
        cache.set_ref(request.revision, listing.commit)
        sizes = {item.name: item.size for item in listing.files}
        write_record(request.data_dir, request.model, request.revision, listing.commit, sizes, request.wanted)
    return Outcome(True, listing.commit, fetched, str(cache.snapshot(listing.commit)), how)


@contextmanager
def _alone(request: Request) -> Iterator[None]:
    """The only download on the node: the kernel frees this lock with the process, whatever ends it."""
    lock = Path(request.data_dir) / "state/download.lock"
    lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(
                "Another download runs on this node, perhaps of a run that was cut off: wait until the container "
                f"{CONTAINER} has ended, or end it with `docker rm --force {CONTAINER}`, then run site.yml --tags "
                "model again; complete files are kept."
            ) from error
        yield


def _fetch_and_verify(request: Request, cache: Cache, listing: Listing, client: Docker) -> Listing:
    """Fetch and verify; a damaged file is removed and fetched once more. The listing of what is there then."""
    os.makedirs(request.models_dir, exist_ok=True)
    damaged = cache.damaged(listing)
    for _ in range(2):
        for item in damaged:
            cache.remove(listing.commit, item.name)
        _stop_earlier(client)
        cache.remove_orphans()
        _fetch(request, client, listing)
        moved = cache.ref(request.revision)
        if moved and moved != listing.commit:
            listing = _relist(request, moved)
        damaged = cache.damaged(listing)
        if not damaged:
            return listing
    raise ModelError(
        f"{damaged[0].name} of {request.model} is still wrong after two downloads ({damaged[0].reason}): "
        "check the disk and the proxy or mirror between the node and the hub."
    )


def _relist(request: Request, commit: str) -> Listing:
    try:
        return _list(request, commit)
    except HubError as error:
        raise ModelError(str(error)) from error


def _stop_earlier(client: Docker) -> None:
    client(["rm", "--force", CONTAINER], {}, 60.0)


def _fetch(request: Request, client: Docker, listing: Listing) -> None:
    image = client(["image", "inspect", "--format", "{{.Id}}", request.image], {}, 30.0)
    if image.rc != 0:
        raise ModelError(
            f"The image {request.image or '(none)'} that brings the download tool cannot be used "
            f"({image.complaint}): run site.yml --tags image first."
        )
    environment = {**request.environment, "HF_ENDPOINT": request.endpoint.rstrip("/")}
    if request.token:
        environment["HF_TOKEN"] = request.token
    passed = {**environment, **{name: "" for name in PROXIES if os.environ.get(name)}}
    certificates = {environment[name] for name in CA_FILES if environment.get(name, "").startswith("/")}
    arguments = [
        "run", "--rm", "--pull", "never", "--name", CONTAINER, "--network", "host",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--env", "HF_HOME=/models", "--env", "HF_HUB_OFFLINE=0",
        "--env", "HF_HUB_DISABLE_PROGRESS_BARS=1", "--env", "HF_HUB_DISABLE_TELEMETRY=1",
        *(word for name in passed for word in ("--env", name)),
        *(word for path in sorted(certificates) for word in ("--volume", f"{path}:{path}:ro")),
        "--volume", f"{request.models_dir}:/models", "--entrypoint", "hf", request.image,
        "download", request.model, "--revision", request.revision,
        *([item.name for item in listing.files] if len(listing.files) < listing.total else []),
    ]  # fmt: skip
    done = _watched(request, client, arguments, environment)
    if done.rc == TIMED_OUT:
        _stop_earlier(client)
        raise ModelError(
            f"{request.model} was not fetched within {request.timeout:g} s: run site.yml --tags model again (the files "
            "that are complete are kept), or raise dgx_vllm_model_download_timeout."
        )
    if done.rc != 0:
        output = _without_secrets(done.stdout + "\n" + done.stderr, environment)
        causes = explain(output)
        reason = causes[0].text if causes else "Run it again, the files that are complete are kept."
        last = Completed(done.rc, "", output).complaint[:300]
        raise ModelError(f"Fetching {request.model} failed with {done.rc} ({last}): {reason}")


def _watched(
    request: Request, client: Docker, arguments: Sequence[str], environment: Mapping[str, str]
) -> Completed:
    """Run the download as long as it writes something now and then."""
    cache = Cache(request.models_dir, request.model)
    written, since = -1, time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client, arguments, environment, request.timeout)
        while True:
            try:
                return running.result(timeout=min(LOOK, request.stall_timeout / 4))
            except StillRunning:
                now = cache.written_bytes()
            if now != written:
                written, since = now, time.monotonic()
            elif time.monotonic() - since >= request.stall_timeout:
                _stop_earlier(client)
                raise ModelError(
                    f"The download of {request.model} wrote nothing for {request.stall_timeout:g} s and was stopped: "
                    "check the node's route and proxy to the hub. Files of Xet come from servers of their own, which "
                    "no mirror replaces: without a route to them set HF_HUB_DISABLE_XET to 1 in "
                    "dgx_vllm_model_environment. Then run site.yml --tags model again; complete files are kept."
                )


def _without_secrets(text: str, environment: Mapping[str, str]) -> str:
    for name, value in environment.items():
        if value and ("@" in value or re.search(r"TOKEN|PASSWORD|SECRET|KEY", name.upper())):
            text = text.replace(value, "***")
    return text


def _refuse_full_disk(request: Request, size: int) -> None:
    place = request.models_dir
    while not os.path.exists(place):
        place = os.path.dirname(place)
    free, needed = shutil.disk_usage(place).free, int(size * (1 + RESERVE))
    if free < needed:
        raise ModelError(
            f"The disk of {request.models_dir} has {_gib(free)} free and {request.model} needs {_gib(needed)}: "
            "free space there, set dgx_vllm_models_dir to a larger disk, or name the files that the server needs in "
            "dgx_vllm_model_include."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
