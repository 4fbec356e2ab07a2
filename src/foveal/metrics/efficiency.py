"""Efficiency: parameters, multiply-adds and latency of a model."""

import statistics
import time

import torch
from torch import Tensor
from torch.backends import mha

from foveal.foundation.columns import Column
from foveal.metrics.metric import About, Metric
from foveal.metrics.observing import evaluating
from foveal.models.image_model import ImageModel

WARMUP_PASSES = 3  # passes before the timed ones; the first passes of a model are slower


def parameters(model: ImageModel) -> int:
    """Return the number of parameters of the model, without buffers."""
    return sum(parameter.numel() for parameter in model.parameters())


def _bilinear_flops(*args: object, out_shape: torch.Size, **kwargs: object) -> int:
    """Return the operations of bilinear sampling: each value is a sum of four products."""
    return 2 * 4 * int(out_shape.numel())


def _multiply_add_flops(*args: object, out_shape: torch.Size, **kwargs: object) -> int:
    """Return the operations of one multiply-add per value."""
    return 2 * int(out_shape.numel())


# Operations that torch's counter ignores, with their number of floating-point operations.
_aten = torch.ops.aten
_EXTRA_FLOPS = {
    **dict.fromkeys(
        (_aten.grid_sampler_2d, _aten.cudnn_grid_sampler, _aten.upsample_bilinear2d),
        _bilinear_flops,
    ),
    _aten.addcmul: _multiply_add_flops,
}


def macs(model: ImageModel, size: tuple[int, int]) -> int:
    """Return the multiply-adds of one forward pass of one image of `size` (H, W) in pixels.

    torch's counter of floating-point operations covers convolutions, linear layers and attention; a
    multiply-add is two of its operations. Two operations that it ignores are added. Bilinear
    sampling (`grid_sample`, `interpolate`) has four multiply-adds per output value, and therefore
    `4 * C * P * P` per patch. The weighted sums of local attention (`addcmul`) have one per value
    and position of the window. Of corner detectors, the convolutions for their gradients and
    smoothing windows are counted. Elementwise operations (activation, normalisation, the corner
    response, softmax) and operations that only move values (pooling, sorting, slices of integer
    pixels) are not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow: imports Triton

    counter = FlopCounterMode(display=False, custom_mapping=_EXTRA_FLOPS)
    # The counter does not support the fused attention that is used in evaluation mode.
    was_enabled = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with evaluating(model), counter:
            model(_image(model, size))
    finally:
        mha.set_fastpath_enabled(was_enabled)
    return int(counter.get_total_flops()) // 2


def latency_ms(model: ImageModel, size: tuple[int, int], repeats: int = 50) -> float:
    """Return the median time of a forward pass of one image on one thread, in milliseconds.

    Args:
        model: a model on any device; a GPU is synchronised.
        size: height and width of the image in pixels.
        repeats: number of timed passes, which follow three passes for warm-up.
    """
    thread_count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(model):
            image = _image(model, size)
            seconds = [_seconds(model, image) for _ in range(WARMUP_PASSES + repeats)]
    finally:
        torch.set_num_threads(thread_count)
    return 1000 * statistics.median(seconds[WARMUP_PASSES:])


def _seconds(model: ImageModel, image: Tensor) -> float:
    """Return the duration of one forward pass."""
    start = time.perf_counter()
    model(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - start


def _image(model: ImageModel, size: tuple[int, int]) -> Tensor:
    """Return an image (1, C, H, W) of noise, always the same, with the model's dtype and device."""
    # A separate generator leaves the caller's random generators unchanged.
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, model.in_channels, *size, generator=generator)
    return image.to(model.mean.device, model.mean.dtype)


PARAMETERS = Metric(
    "parameters",
    lambda subject: {"parameters": parameters(subject.model)},
    (Column("parameters", "parameters", "{:,}", "number of parameters", "lower"),),
    about=About.COST,
)
MACS = Metric(
    "macs",
    lambda subject: {"macs": macs(subject.model, subject.observed.size)},
    (Column("macs", "MACs", "{:,}", "multiply-adds of a forward pass of one image", "lower"),),
    about=About.COST,
)
LATENCY = Metric(
    "latency_ms",
    lambda subject: {"latency_ms": latency_ms(subject.model, subject.observed.size)},
    (
        Column(
            "latency_ms",
            "latency",
            "{:.2f} ms",
            "median time of a forward pass of one image on one thread",
            "lower",
        ),
    ),
    about=About.COST,
)
