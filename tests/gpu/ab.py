"""A/B of one GPU: stock vLLM, patched, patched with the shipped MoE config, patched with the tuner's.

    python3 tests/gpu/ab.py --out DIR --tuned DIR [--runs 13] [--layers 8]

The four servers are held at the same time and measured in turn, the others stopped, so that what drifts drifts for
all of them. DGX_VLLM_ASSUME_CAPABILITY=12.1 makes the patched ones choose as on capability 12.1;
the GPU stays what it is.
Exit status: 0 all promises kept, 1 one was not, 2 the trial could not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import report
import toy
from server import IMAGE, Server, TrialError, Variant, prompt

#: name -> (prompts a request, prompt length, tokens each); a prefill is one token after a long prompt.
WORKLOADS = {
    "decode, batch 1": (1, 16, 256),
    "decode, batch 8": (8, 16, 256),
    "decode, batch 32": (32, 16, 256),
    "prefill, 4000 tokens": (1, 4000, 1),
}
MARKERS = {
    "linear": "[vLLM SM_121] Detected GB10 (SM_121) - using torch backend for FP8 linear layers",
    "moe": "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers",
}
GREEDY_PROMPTS, GREEDY_TOKENS = 4, 32
#: The tuned config fails when its median pair is slower than the default by more than SLACK and most pairs agree.
SLACK, MOST = 0.02, 0.75


def _python(code: str, python_path: list[Path]) -> dict[str, Any]:
    """Run code in a process of its own and read the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {list(map(str, python_path))!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TrialError(f"vLLM cannot be used here: {done.stderr.strip().splitlines()[-1:]}")
    data: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return data


def machine() -> dict[str, Any]:
    """GPU, versions, and vLLM's own name for this layer's file."""
    return _python(
        "import json, dataclasses\n"
        "from moe_config import bench, space\n"
        "m = dataclasses.asdict(bench.machine())\n"
        "m['file'] = bench.tuned_file_name(space.Shape(512, 512, 2048, 10))\n"
        "print(json.dumps(m))",
        [IMAGE],
    )


def patched_tree(work: Path) -> Path:
    """A copy of the installed vLLM with the patch applied."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise TrialError("There is no vLLM in this Python: install the one that fits its torch.")
    root = work / "patched"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(next(iter(spec.submodule_search_locations)), root / "vllm")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sm121_patch",
            "apply",
            "--root",
            str(root),
            "--manifest",
            str(work / "manifest.json"),
        ],
        cwd=IMAGE,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode:
        raise TrialError(f"The patch was not applied: {done.stderr.strip()}")
    return root


def variants(work: Path, tuned: Path, file: str) -> list[Variant]:
    """The four sides."""
    tree = patched_tree(work)
    seed = work / "seed"
    seed.mkdir(exist_ok=True)
    (shipped,) = (IMAGE / "configs").glob("E=512,N=512,*dtype=fp8_w8a8.json")
    shutil.copy(shipped, seed / file)
    if not (tuned / file).is_file():
        raise TrialError(f"{tuned} has no {file}: run moe_config tune on this GPU first.")
    assume = {"DGX_VLLM_ASSUME_CAPABILITY": "12.1"}
    return [
        Variant("stock", []),
        Variant("patched-default", [tree], assume),
        Variant("patched-seed", [tree], assume, seed),
        Variant("patched-tuned", [tree], assume, tuned),
    ]


def check_logs(servers: list[Server]) -> list[str]:
    """What each log must and must not say; one sentence for each broken promise."""
    wrong = []
    for server in servers:
        text, name = server.text(), server.variant.name
        for route, marker in MARKERS.items():
            count = text.count(marker)
            if (name == "stock") != (count == 0):
                wrong.append(f"{name}: the {route} marker is in its log {count} times.")
        folder = server.variant.tuned
        if folder and f"Using configuration from {folder}/" not in text:
            wrong.append(f"{name}: vLLM did not load the config of {folder}.")
        if name == "patched-default" and "Using default MoE config" not in text:
            wrong.append(f"{name}: vLLM found a config where it should have used its default.")
    return wrong


def greedy(servers: list[Server]) -> tuple[dict[str, Any], list[str]]:
    """(tokens of each side, sentences on those that differ from stock)."""
    prompts = [prompt(24, seed) for seed in range(GREEDY_PROMPTS)]
    texts = {s.variant.name: s.complete(prompts, GREEDY_TOKENS, 0.0)[1] for s in servers}
    wrong = []
    for name, found in texts.items():
        differing = sum(mine != stock for mine, stock in zip(found, texts["stock"], strict=True))
        if differing:
            wrong.append(f"{name}: {differing} of {GREEDY_PROMPTS} greedy completions differ from stock.")
    return {"prompts": prompts, "texts": texts}, wrong


def warm_up(server: Server, count: int, length: int, tokens: int) -> None:
    """Have Triton compile what the workload may run: requests of a batch start in steps of any size."""
    server.resume()
    for number in {count, *(n for n in (1, 2, 3, 5, 8, 13, 24) if n < count)}:
        for extra in (0, 1):
            server.complete([prompt(length + extra, number) for _ in range(number)], min(tokens, 24), 1.0)
    server.complete([prompt(length, number) for number in range(count)], tokens, 1.0)
    server.pause()


def measure(servers: list[Server], runs: int) -> dict[str, dict[str, list[float]]]:
    """Tokens per second (generated ones, or the prompt's for a prefill) of each run, the sides in turn."""
    rates: dict[str, dict[str, list[float]]] = {}
    for server in servers:
        server.pause()
    for workload, (count, length, tokens) in WORKLOADS.items():
        rates[workload] = {server.variant.name: [] for server in servers}
        for server in servers:
            warm_up(server, count, length, tokens)
        for run in range(runs):
            for place in range(len(servers)):
                server = servers[(place + run) % len(servers)]
                prompts = [prompt(length, 1000 * run + number) for number in range(count)]
                server.resume()
                server.complete([prompt(16, run)], 8, 1.0)  # wakes it up
                seconds, _ = server.complete(prompts, tokens, 1.0)
                server.pause()
                done = count * (tokens if tokens > 1 else length)
                rates[workload][server.variant.name].append(round(done / seconds, 2))
        print(report.line(workload, rates[workload]), flush=True)
    return rates


def slower(rates: dict[str, dict[str, list[float]]]) -> list[str]:
    """Workloads at which the tuner's config loses to the default beyond the noise."""
    wrong = []
    for workload, sides in rates.items():
        pairs = zip(sides["patched-tuned"], sides["patched-default"], strict=True)
        ratios = [mine / base for mine, base in pairs]
        losses = sum(ratio < 1 for ratio in ratios) / len(ratios)
        if report.median(ratios) < 1 - SLACK and losses >= MOST:
            wrong.append(
                f"{workload}: the tuned config reaches {report.median(ratios):.3f} of the default's speed."
            )
    return wrong


def main() -> int:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where results and logs go")
    parser.add_argument("--tuned", type=Path, required=True, help="directory with the tuner's file")
    parser.add_argument("--work", type=Path, default=Path("/tmp/dgx-vllm-gpu"), help="scratch space, 2 GB")
    parser.add_argument("--runs", type=int, default=13)
    parser.add_argument("--layers", type=int, default=8, help="1.6 GB of GPU memory each, four times")
    parser.add_argument("--port", type=int, default=18300)
    parser.add_argument("--start-seconds", type=int, default=300)
    options = parser.parse_args()
    if options.runs < 5:
        parser.error("--runs must be 5 or more: fewer say nothing")
    # Time is up: the servers have to be stopped, which are no children of a shell.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))
    servers: list[Server] = []
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        found = machine()
        model = toy.write(options.work / "model", options.layers)
        sides = variants(options.work, options.tuned.resolve(), found["file"])
        deadline = time.monotonic() + options.start_seconds
        for number, side in enumerate(sides):
            servers.append(Server(side, model, options.port + number, options.work))
        for server in servers:
            server.wait(deadline)
            print(f"{server.variant.name}: healthy after {server.started_s} s", flush=True)
        outputs, wrong = greedy(servers)
        rates = measure(servers, options.runs)
        wrong += check_logs(servers) + slower(rates)
        result = {
            "machine": found,
            "assumed_capability": "12.1",
            "layers": options.layers,
            "runs": options.runs,
            "workloads": WORKLOADS,
            "rates": rates,
            "started_s": {server.variant.name: server.started_s for server in servers},
            "greedy": outputs,
            "broken": wrong,
        }
        (options.out / "ab.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(report.write(result, options.out))
    except TrialError as error:
        print(f"gpu trial: {error}", file=sys.stderr)
        return 2
    finally:
        for server in servers:
            server.stop()
            shutil.copy(server.log, options.out / server.log.name)
    for sentence in wrong:
        print(f"BROKEN: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
