"""Synchronised batch normalisation: statistics over the images of all processes."""

import torch
import torch.distributed.nn.functional as collective
from torch import Tensor, nn


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by statistics over the images of all processes.

    Like torch's SyncBatchNorm, but on CPUs too. With one process, or in evaluation, it equals
    `BatchNorm2d`.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise this process's part (B, C, H, W) of a batch."""
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(images)
        values = images.double() if images.dtype == torch.float64 else images.float()
        count = torch.full_like(values[:1, 0, :1, 0].flatten(), values[:, 0].numel())
        total = collective.all_reduce(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        mean = total[:-1] / total[-1]  # (C,)
        centred = values - mean[:, None, None]
        # A second reduction around the mean is more precise than the mean of squares.
        variance = collective.all_reduce(centred.square().sum(dim=(0, 2, 3))) / total[-1]
        self._update_running(mean.detach(), variance.detach(), float(total[-1].detach()))
        scaled = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(images.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = self.momentum
        if weight is None:  # the mean of all batches so far
            weight = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * count / max(count - 1, 1), weight)


def synchronise(model: nn.Module) -> None:
    """Replace each BatchNorm2d of a model in place by a SyncedBatchNorm with the same weights."""
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
