"""Synchronised batch normalisation, whose statistics are over the images of all processes."""

import torch
import torch.distributed.nn.functional as collective
from torch import Tensor, nn


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by statistics over the images of all processes.

    Unlike torch's SyncBatchNorm, it runs on CPUs too. In evaluation, or if training is not
    distributed, it is the same as `BatchNorm2d`.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of this process, a part of the batch, normalised."""
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(images)
        values = images.double() if images.dtype == torch.float64 else images.float()
        count = torch.full_like(values[:1, 0, :1, 0].flatten(), values[:, 0].numel())
        # (C + 1,): the sum of each channel, then the number of values per channel
        totals = collective.all_reduce(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        mean = totals[:-1] / totals[-1]  # (C,)
        centred = values - mean[:, None, None]
        # Reducing squared deviations from the mean is more precise than reducing squares.
        variance = collective.all_reduce(centred.square().sum(dim=(0, 2, 3))) / totals[-1]
        self._update_running(mean.detach(), variance.detach(), float(totals[-1].detach()))
        scaled = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(images.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Update the running statistics from a batch.

        Args:
            mean: mean (C,) of the batch over all processes.
            variance: biased variance (C,) of the batch over all processes.
            count: number of values per channel over all processes.
        """
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = self.momentum
        if weight is None:  # in torch, this means an equal weight for all batches so far
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
