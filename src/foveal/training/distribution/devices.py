"""Devices: what a training runs on, and which process writes its results."""

import os
from dataclasses import dataclass

import torch

from foveal.foundation.errors import UserError, unknown_name

STRATEGIES = ("auto", "ddp", "fsdp")
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # set by launchers


@dataclass(frozen=True)
class Devices:
    """What to train on.

    Attributes:
        count: devices of each machine, as Lightning takes it.
        nodes: machines.
        strategy: `auto`, `ddp` (each process has the model) or `fsdp` (on GPUs, each has a part).
        sync_norm: batch normalisation takes the statistics of all processes' images.

    Raises:
        UserError: an unknown strategy, no node, or `fsdp` without GPUs.
    """

    count: str | int = "auto"
    nodes: int = 1
    strategy: str = "auto"
    sync_norm: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise unknown_name("strategy", self.strategy, STRATEGIES)
        if self.nodes < 1:
            raise UserError(f"Expected 1 node or more, but got {self.nodes}.")
        if self.strategy == "fsdp" and not torch.cuda.is_available():
            raise UserError("fsdp shards a model over GPUs, and there is none here: give ddp.")

    @property
    def processes(self) -> int:
        """How many processes train, on all nodes."""
        count = self.count
        if count in ("auto", -1, "-1"):
            count = max(1, torch.cuda.device_count())
        return int(count) * self.nodes


def check_batch(batch_size: int, processes: int) -> None:
    """Check that each process gets the same number of images of a batch.

    The gradients of processes are averaged: unequal parts would count some images more.

    Raises:
        UserError: the batch cannot be divided.
    """
    if batch_size % processes:
        near = max(1, round(batch_size / processes)) * processes
        raise UserError(
            f"A batch of {batch_size} images cannot be shared evenly by {processes} processes: "
            f"give training.batch_size={near}. It is the batch of all processes together."
        )


def is_first_process() -> bool:
    """Return whether this process writes the run, of all on all machines."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)
