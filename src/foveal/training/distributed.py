"""Training by several processes: who is first, what they share, and normalisation over all."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.nn.functional as collective
from torch import Tensor, nn

from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.files import parse_json, whole_file
from foveal.training.sets import Sets

STRATEGIES = ("auto", "ddp", "fsdp")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # whoever started us
_SHARED = "FOVEAL_SHARED_IMAGES"  # tells the processes of one machine where the images lie


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
    return all(int(os.environ.get(name) or 0) == 0 for name in _RANKS)


def shared_images(load: Callable[[], Sets], folder: Path, processes: int) -> Sets:
    """Return images that the processes of one machine hold in memory once.

    The first process writes them into a file that all map; the system then keeps one copy of its
    pages. Where a launcher (torchrun, SLURM) starts all processes at once, each loads its own;
    large images stay in their files.

    Args:
        load: returns the image sets.
        folder: of the run, for the file.
        processes: how many will train.
    """
    place = os.environ.get(_SHARED)
    if place:
        return _mapped(Path(place))
    sets = load()
    in_memory = all(isinstance(part.images, Tensor) for part in sets.values())
    if processes == 1 or any(name in os.environ for name in _RANKS) or not in_memory:
        return sets
    path = folder / "images.safetensors"
    _write(sets, path)
    os.environ[_SHARED] = str(path)  # Lightning starts the other processes with this environment
    return _mapped(path)


def forget_shared_images(folder: Path) -> None:
    """Delete the file of shared images; processes that have mapped it keep what they see."""
    if is_first_process() and os.environ.pop(_SHARED, None) is not None:
        (folder / "images.safetensors").unlink(missing_ok=True)


def _write(sets: dict[str, ImageSet], path: Path) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    said: dict[str, str] = {}
    for split, images in sets.items():
        kept = {"images": images.images, "labels": images.labels, "masks": images.masks}
        tensors |= {f"{split}.{k}": v.contiguous() for k, v in kept.items() if v is not None}
        said[split] = json.dumps({"name": images.name, "classes": images.classes})
    try:
        with whole_file(path) as partial:
            save_file(tensors, partial, said)
    except Exception as error:  # the disk's
        raise UserError(f"Cannot share the images as {path}: {error}") from None


def _mapped(path: Path) -> dict[str, ImageSet]:
    from safetensors import safe_open

    sets = {}
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for split, said in file.metadata().items():
            found = parse_json(said)
            masks = f"{split}.masks"
            sets[split] = ImageSet(
                name=found["name"],
                split=split,
                images=file.get_tensor(f"{split}.images"),
                labels=file.get_tensor(f"{split}.labels"),
                classes=tuple(found["classes"]),
                masks=file.get_tensor(masks) if masks in names else None,
            )
    return sets


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of the images of all processes.

    As torch's SyncBatchNorm, but on CPUs too. With one process, and outside of training, it is
    `BatchNorm2d`.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise this process' part (B, C, H, W) of a batch."""
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(images)
        values = images.double() if images.dtype == torch.float64 else images.float()
        count = torch.full_like(values[:1, 0, :1, 0].flatten(), values[:, 0].numel())
        total = collective.all_reduce(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        mean = total[:-1] / total[-1]  # (C,)
        centred = values - mean[:, None, None]
        # Around the mean, in a second round: less is lost than by the mean of squares.
        variance = collective.all_reduce(centred.square().sum(dim=(0, 2, 3))) / total[-1]
        self._remember(mean.detach(), variance.detach(), float(total[-1].detach()))
        scaled = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(images.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:  # the mean of all batches so far
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1, 1), share)


def synchronise(model: nn.Module) -> None:
    """Replace each BatchNorm2d of a model by a SyncedBatchNorm with the same weights, in place."""
    for name, child in model.named_children():
        if type(child) is nn.BatchNorm2d:
            synced = SyncedBatchNorm(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
            )
            synced.load_state_dict(child.state_dict())
            for key, weight in child.named_parameters():
                getattr(synced, key).requires_grad_(weight.requires_grad)
            setattr(model, name, synced.train(child.training))
        else:
            synchronise(child)
