"""The tuner's search space, and what is known about a configuration without compiling it. Pure, standard library."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from . import ConfigError

#: The batch sizes that vLLM's own tuned files have as keys.
BATCH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096)

#: Shared memory that one block may have, bytes, by compute capability (CUDA C++ programming guide, table of
#: technical specifications per compute capability: "Maximum amount of shared memory per thread block").
SHARED_LIMIT = {80: 166912, 86: 101376, 87: 166912, 89: 101376, 90: 232448, 100: 232448, 103: 232448}
SHARED_LIMIT.update({120: 101376, 121: 101376})

KEYS = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps", "num_stages")
DTYPES = ("bf16", "fp8-channel", "fp8-tensor", "fp8-block")
_MAX_REGISTERS = 255


@dataclass(frozen=True, order=True)
class Config:
    """One entry of a tuned file."""

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    num_warps: int
    num_stages: int

    def as_entry(self) -> dict[str, int]:
        """As vLLM's files write it."""
        return dict(zip(KEYS, asdict(self).values(), strict=True))

    def as_kernel(self) -> dict[str, int]:
        """The part that the kernel takes as constants."""
        return {key: value for key, value in self.as_entry().items() if key.isupper()}

    @classmethod
    def from_entry(cls, entry: dict[str, Any], where: str) -> Config:
        """Read an entry; ConfigError says what is wrong with it."""
        if not isinstance(entry, dict):
            raise ConfigError(f"{where} is not an object: write the six values of a configuration.")
        unknown = sorted(set(entry) - set(KEYS) - {"SPLIT_K"})
        missing = [key for key in KEYS if key not in entry]
        if unknown or missing:
            what = f"has an unknown key {unknown[0]}" if unknown else f"lacks {missing[0]}"
            raise ConfigError(f"{where} {what}: the keys are {', '.join(KEYS)}.")
        values = [entry[key] for key in KEYS]
        for key, value in zip(KEYS, values, strict=True):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{where} has {key}={value!r}: write a whole number from 1.")
            if key != "num_stages" and key != "GROUP_SIZE_M" and value & (value - 1):
                raise ConfigError(f"{where} has {key}={value}: Triton accepts only powers of two.")
        if entry.get("SPLIT_K", 1) != 1:
            raise ConfigError(f"{where} has SPLIT_K={entry['SPLIT_K']}: vLLM's kernel accepts only 1.")
        return cls(*values)

    def __str__(self) -> str:
        tile = f"M{self.block_m} N{self.block_n} K{self.block_k} G{self.group_m}"
        return f"{tile} w{self.num_warps} s{self.num_stages}"


@dataclass(frozen=True)
class Shape:
    """A MoE layer as one GPU holds it: local experts, expert size after tensor parallelism, hidden size, top-k."""

    experts: int
    size: int
    hidden: int
    topk: int
    dtype: str = "fp8-channel"
    block: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype {self.dtype} cannot be tuned: choose one of {', '.join(DTYPES)}.")
        if (self.dtype == "fp8-block") != (self.block is not None):
            raise ConfigError("A block shape goes with dtype fp8-block and with no other: check the options.")
        if min(self.experts, self.size, self.hidden, self.topk) < 1 or self.topk > self.experts:
            raise ConfigError(
                f"{self.experts} experts, size {self.size}, hidden {self.hidden}, top-{self.topk} is not a MoE layer: "
                "give numbers from 1, and no more experts per token than there are."
            )

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of the two operands."""
        return 2 if self.dtype == "bf16" else 1

    @property
    def file_dtype(self) -> str | None:
        """The dtype as vLLM writes it in file names."""
        return None if self.dtype == "bf16" else "fp8_w8a8"


def shared_memory(config: Config, element_bytes: int = 1, capability: int = 121) -> int:
    """Bytes of shared memory that Triton takes for vLLM's MoE kernel.

    The loop over K keeps tiles of both operands in flight: num_stages - 1 of them, and one more on capability 9.0,
    where its own matrix instructions, 64 rows tall, read them from there (vLLM swaps the operands of FP8 tiles that
    are wider than tall). The compiler's values for sm_121 and sm_90 equal this for FP8 per channel
    (tests/image/test_moe_doctor.py); elsewhere it is a lower bound.
    """
    tall = config.block_m >= 64 or (config.block_n >= 64 and element_bytes == 1)
    tiles = config.num_stages if capability == 90 and tall else config.num_stages - 1
    return (config.block_m + config.block_n) * config.block_k * element_bytes * max(tiles, 1)


def brute_force() -> list[Config]:
    """The 1,920 configurations that vLLM's own tuner times for every batch size."""
    return [
        Config(m, n, k, group, warps, stages)
        for m, n, k, group, warps, stages in itertools.product(
            (16, 32, 64, 128, 256), (32, 64, 128, 256), (64, 128, 256), (1, 16, 32, 64), (4, 8), (2, 3, 4, 5)
        )
    ]


def refusal(config: Config, shape: Shape, batch: int, capability: int) -> str | None:
    """Why a configuration need not be compiled for a batch size, or None."""
    if shared_memory(config, shape.element_bytes, capability) > shared_limit(capability):
        return "shared memory"
    if config.block_m * config.block_n // (32 * config.num_warps) > _MAX_REGISTERS:
        return "registers"  # the float32 accumulator alone has more values than a thread has registers
    if config.block_m > max(16, 1 << (batch - 1).bit_length()):
        return "padding"  # an expert gets at most `batch` tokens: a taller tile does the same work and more
    if shape.block and (config.block_k > shape.block[1] or shape.block[1] % config.block_k):
        return "block shape"  # vLLM cuts BLOCK_SIZE_K to the quantisation block: a duplicate of another one
    if config.block_n > 2 * shape.size or config.block_k > min(shape.size, shape.hidden):
        return "layer size"
    return None


def shared_limit(capability: int) -> int:
    """Bytes of shared memory that a block may have; ConfigError for a capability that the table lacks."""
    if capability not in SHARED_LIMIT:
        raise ConfigError(f"Capability {capability} is not in SHARED_LIMIT of moe_config/space.py: add it.")
    return SHARED_LIMIT[capability]


def launch_class(shape: Shape, batch: int) -> tuple[bool, bool]:
    """Batch sizes of one class run the same compiled kernel.

    Triton compiles separately for numbers of tokens that 16 divides, and vLLM launches few tokens without sorting them.
    """
    pairs = batch * shape.topk
    return pairs * 4 <= shape.experts, pairs % 16 == 0


def candidates(shape: Shape, batch: int, capability: int) -> tuple[list[Config], dict[str, int]]:
    """(configurations worth compiling, how many others were dropped for which reason)."""
    kept: list[Config] = []
    dropped: dict[str, int] = {}
    for config in brute_force():
        reason = refusal(config, shape, batch, capability)
        if reason is None:
            kept.append(config)
        else:
            dropped[reason] = dropped.get(reason, 0) + 1
    return kept, dropped
