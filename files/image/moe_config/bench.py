"""Time vLLM's fused MoE layer on the GPU of this machine; the only part of moe_config that needs torch and vLLM."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any

from . import ConfigError
from .space import Config, Shape

_FP8_MAX = 448.0
#: Largest relative error (norm of the difference over the norm) of a result against the float32 reference. Rounding
#: to FP8 in between turns last-bit differences into whole FP8 steps of some elements: correct results had up to 0.02.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Machine:
    """The GPU and the versions that a result depends on."""

    device: str
    capability: int
    vllm: str
    torch: str
    triton: str


def machine() -> Machine:
    """What this process runs on; ConfigError, one sentence, if there is no GPU or no vLLM."""
    try:
        import torch
        import triton
        import vllm
    except ImportError as error:
        raise ConfigError(f"{error.name} cannot be imported: run this in the image, on the node.") from None
    if not torch.cuda.is_available():
        raise ConfigError(
            "torch sees no NVIDIA GPU: give the container its GPU, or run this on another machine."
        )
    major, minor = torch.cuda.get_device_capability()
    return Machine(
        torch.cuda.get_device_name(),
        10 * major + minor,
        vllm.__version__,
        torch.__version__,
        triton.__version__,
    )


def default_config(shape: Shape, batch: int) -> Config:
    """What vLLM uses for this batch size if it finds no file."""
    from vllm.model_executor.layers.fused_moe.fused_moe import get_default_config

    block = list(shape.block) if shape.block else None
    entry = get_default_config(
        M=batch, E=shape.experts, N=shape.size, K=shape.hidden, topk=shape.topk, dtype=shape.file_dtype,
        block_shape=block,
    )  # fmt: skip
    return Config.from_entry(
        {"num_warps": 4, "num_stages": 3, **entry}, f"vLLM's default for batch size {batch}"
    )


def tuned_file_name(shape: Shape) -> str:
    """vLLM's own name of the file for this GPU."""
    from vllm.model_executor.layers.fused_moe.fused_moe import get_config_file_name

    block = list(shape.block) if shape.block else None
    return str(get_config_file_name(shape.experts, shape.size, shape.file_dtype, block))


def _quantised(torch: Any, experts: int, rows: int, columns: int, real: bool) -> tuple[Any, Any]:
    """(FP8 weights, scale of each output channel); one expert repeated `experts` times unless `real`."""
    held = experts if real else 1
    weights = torch.empty((held, rows, columns), dtype=torch.float8_e4m3fn, device="cuda")
    scales = torch.empty((held, rows, 1), dtype=torch.float32, device="cuda")
    for start in range(0, held, 32):
        part = torch.randn((min(32, held - start), rows, columns), dtype=torch.float32, device="cuda")
        part /= columns**0.5
        scale = part.abs().amax(dim=2, keepdim=True) / _FP8_MAX
        weights[start : start + 32] = (part / scale).to(torch.float8_e4m3fn)
        scales[start : start + 32] = scale
    return (weights, scales) if real else (weights.expand(experts, -1, -1), scales.expand(experts, -1, -1))


class Layer:
    """Random weights of one MoE layer, and vLLM's own function over them."""

    def __init__(self, shape: Shape, real: bool = True) -> None:
        if shape.dtype != "fp8-channel":
            raise ConfigError(
                f"tune times fp8-channel only, not {shape.dtype}: use vLLM's own tuner for that one."
            )
        import torch
        from vllm.model_executor.layers.fused_moe import fused_moe
        from vllm.model_executor.layers.fused_moe.config import fp8_w8a8_moe_quant_config

        torch.manual_seed(0)
        self.torch, self.shape, self._function = torch, shape, fused_moe.fused_experts
        self.w1, self.w1_scale = _quantised(torch, shape.experts, 2 * shape.size, shape.hidden, real)
        self.w2, self.w2_scale = _quantised(torch, shape.experts, shape.hidden, shape.size, real)
        self._quant = fp8_w8a8_moe_quant_config(
            w1_scale=self.w1_scale, w2_scale=self.w2_scale, per_act_token_quant=True, per_out_ch_quant=True
        )

    def tokens(self, batch: int, calls: int) -> list[tuple[Any, Any, Any]]:
        """(hidden states, routing weights, expert ids) of several calls, each with its own routing."""
        torch, shape = self.torch, self.shape
        made = []
        for _ in range(calls):
            hidden = torch.randn((batch, shape.hidden), dtype=torch.bfloat16, device="cuda")
            weights, ids = torch.randn((batch, shape.experts), device="cuda").softmax(-1).topk(shape.topk)
            made.append((hidden, weights / weights.sum(-1, keepdim=True), ids.to(torch.int32)))
        return made

    def run(self, config: Config, token: tuple[Any, Any, Any]) -> Any:
        """One call of vLLM's function under this configuration."""
        from vllm.model_executor.layers.fused_moe import override_config

        hidden, weights, ids = token
        with override_config({**config.as_entry(), "SPLIT_K": 1}):
            return self._function(
                hidden_states=hidden, w1=self.w1, w2=self.w2, topk_weights=weights, topk_ids=ids,
                quant_config=self._quant,
            )  # fmt: skip

    def reference(self, token: tuple[Any, Any, Any], limit: int) -> Any:
        """The first `limit` tokens in float32: dequantised weights, activations rounded to FP8 as vLLM rounds them."""
        torch = self.torch

        def rounded(values: Any) -> Any:
            scale = values.abs().amax(dim=-1, keepdim=True).clamp_min(1e-10) / _FP8_MAX
            return (values / scale).clamp(-_FP8_MAX, _FP8_MAX).to(torch.float8_e4m3fn).float() * scale

        rows = []
        for hidden, weights, ids in zip(*(part[:limit] for part in token), strict=True):
            chosen = ids.long()
            w1 = self._dequantised(self.w1, self.w1_scale, chosen)
            both = (w1 @ rounded(hidden.float())).to(torch.bfloat16).float()
            gate, up = both.chunk(2, dim=-1)
            inner = (torch.nn.functional.silu(gate) * up).to(torch.bfloat16).float()
            w2 = self._dequantised(self.w2, self.w2_scale, chosen)
            out = (w2 @ rounded(inner).unsqueeze(-1)).squeeze(-1)
            rows.append((out * weights.unsqueeze(-1)).sum(0))
        return torch.stack(rows)

    def _dequantised(self, weights: Any, scales: Any, chosen: Any) -> Any:
        torch = self.torch  # indexing goes by bytes: not every torch indexes FP8
        return weights.view(torch.uint8)[chosen].view(torch.float8_e4m3fn).float() * scales[chosen]

    def error(self, config: Config, batch: int, limit: int = 32) -> float:
        """Relative error of a configuration's result on fresh tokens; infinite if it has a NaN."""
        (token,) = self.tokens(batch, 1)
        result = self.run(config, token)[:limit].float()
        reference = self.reference(token, limit)
        value = float((result - reference).norm() / reference.norm())
        return value if value == value else float("inf")


class GraphBench:
    """Times a layer through CUDA graphs: several calls with different routings per replay, timed by events."""

    def __init__(self, layer: Layer, batch: int) -> None:
        self._layer, self._torch = layer, layer.torch
        # Enough routings per replay that its weights do not stay in the L2 cache.
        self._tokens = layer.tokens(batch, max(4, 16 // batch))
        self._graphs: dict[Config, Any] = {}
        self._pool = layer.torch.cuda.graph_pool_handle()
        self._events = [layer.torch.cuda.Event(enable_timing=True) for _ in range(2)]
        self.failed: dict[Config, str] = {}

    def prepare(self, config: Config) -> bool:
        """Compile, capture and warm up; False, with the reason recorded, if this GPU cannot run it."""
        if config in self._graphs:
            return True
        if config in self.failed:
            return False
        torch = self._torch
        try:
            self._layer.run(config, self._tokens[0])
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                for token in self._tokens:
                    self._layer.run(config, token)
            graph.replay()
            torch.cuda.synchronize()
        except Exception as error:
            self.failed[config] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            try:
                torch.cuda.synchronize()
            except Exception:
                raise ConfigError(
                    f"{config} broke the GPU's state ({self.failed[config]}): start again, tuning skips it."
                ) from error
            return False
        self._graphs[config] = graph
        return True

    def sample(self, config: Config) -> float:
        """One replay, microseconds per call."""
        start, end = self._events
        start.record()
        self._graphs[config].replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1000.0 / len(self._tokens)

    def release(self, config: Config) -> None:
        """Drop the graph."""
        self._graphs.pop(config, None)


_worker: Layer | None = None


def _start_worker(shape: Shape) -> None:
    global _worker
    with contextlib.redirect_stdout(None):
        _worker = Layer(shape, real=False)


def _compile(batch: int, configs: Sequence[Config]) -> None:
    """Fill Triton's cache on disk; what fails here fails again, and is counted, when it is timed."""
    assert _worker is not None
    (token,) = _worker.tokens(batch, 1)
    for config in configs:
        with contextlib.suppress(Exception):
            _worker.run(config, token)


def compile_ahead(
    shape: Shape,
    todo: Sequence[tuple[int, Config]],
    seconds: float,
    report: Callable[[int, int], None],
    workers: int | None = None,
) -> int:
    """Compile (batch, configuration) pairs in separate processes; how many were done when time was up."""
    count = workers or max(1, min(16, (os.cpu_count() or 2)))
    chunks = list(_chunks(todo, 2))
    deadline = time.monotonic() + seconds
    done = 0
    pool = futures.ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker, (shape,))
    try:
        jobs = {pool.submit(_compile, batch, configs): len(configs) for batch, configs in chunks}
        for job in futures.as_completed(jobs, timeout=max(1.0, deadline - time.monotonic())):
            if job.exception() is None:
                done += jobs[job]
            report(done, len(todo))
    except futures.TimeoutError:
        pass
    finally:
        processes = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
    return done


def _chunks(todo: Sequence[tuple[int, Config]], size: int) -> Iterator[tuple[int, list[Config]]]:
    batches: dict[int, list[Config]] = {}
    for batch, config in todo:
        batches.setdefault(batch, []).append(config)
    for batch, configs in batches.items():
        for start in range(0, len(configs), size):
            yield batch, configs[start : start + size]
