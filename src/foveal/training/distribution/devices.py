"""Devices of a training run, and the process that writes its results."""

import os
from dataclasses import dataclass

import torch

from foveal.foundation.errors import UserError, unknown_name

STRATEGIES = ("auto", "ddp", "fsdp")
# Environment variables with which launchers tell a process its number among all processes.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Devices:
    """The devices of a training run, and how they share the work.

    Attributes:
        count: number of devices per machine, in any form that Lightning accepts.
        nodes: number of machines.
        strategy: `auto`, `ddp` (each process holds the model) or `fsdp` (each holds a part of it,
            on GPUs only).
        sync_norm: whether batch normalisation uses the statistics of all processes' images.

    Raises:
        UserError: unknown strategy, fewer than 1 node, or `fsdp` without GPUs.
    """

    count: str | int = "auto"
    nodes: int = 1
    strategy: str = "auto"
    sync_norm: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise unknown_name("strategy", self.strategy, STRATEGIES)
        if self.nodes < 1:
            raise UserError(f"Expected at least 1 node, but got {self.nodes}.")
        if self.strategy == "fsdp" and not torch.cuda.is_available():
            raise UserError("fsdp requires GPUs, but this machine has none: use ddp.")

    @property
    def processes(self) -> int:
        """Number of training processes on all nodes: one per device."""
        count = self.count
        if count in ("auto", -1, "-1"):  # all GPUs, or one process on CPUs
            count = max(1, torch.cuda.device_count())
        return int(count) * self.nodes


def check_batch(batch_size: int, processes: int) -> None:
    """Check that a batch can be divided equally among processes.

    Gradients are averaged over processes, so unequal parts would give some images more weight.

    Raises:
        UserError: the batch cannot be divided equally.
    """
    if batch_size % processes:
        nearest = max(1, round(batch_size / processes)) * processes
        raise UserError(
            f"A batch of {batch_size} images cannot be divided evenly among {processes} processes: "
            f"use training.batch_size={nearest}, which counts the images of all processes together."
        )


def is_first_process() -> bool:
    """Return whether this process is the first of a training run, which writes the results."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)
