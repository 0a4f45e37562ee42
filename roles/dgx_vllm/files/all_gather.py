"""A small all-gather over all nodes of a replica, timed; run inside the image by the fabric gate, one process per node.

Rank, world size and the first node's address come from the environment, as torch.distributed reads them. Buffers take
1.5 GiB: a GB10 shares its memory with the GPU, and a test of 16 GiB has frozen one (reported by users).
"""

from __future__ import annotations

import datetime
import time

import torch
import torch.distributed as dist

MIB = 2**20
SIZE = 1024 * MIB
"""Bytes of the gathered result on each node, half as much again is sent from. The gate's limit belongs to this size."""

WARM_UP = 5
REPEATS = 10


def bus_gbytes(size: int, world: int, seconds: float) -> float:
    """Bus bandwidth of one all-gather as nccl-tests defines it, in 10**9 bytes per second."""
    return size / seconds * (world - 1) / world / 1e9


def main() -> None:
    """Gather and print the average on rank 0."""
    dist.init_process_group("nccl", timeout=datetime.timedelta(seconds=90))
    world = dist.get_world_size()
    own = torch.ones(SIZE // world, dtype=torch.uint8, device="cuda")
    everything = torch.empty(own.numel() * world, dtype=torch.uint8, device="cuda")
    for _ in range(WARM_UP):
        dist.all_gather_into_tensor(everything, own)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(REPEATS):
        dist.all_gather_into_tensor(everything, own)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / REPEATS
    if dist.get_rank() == 0:
        print(f"# Avg bus bandwidth    : {bus_gbytes(everything.numel(), world, seconds):.3f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
