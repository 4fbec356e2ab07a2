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


def parameters(model: ImageModel) -> int:
    """Return how many numbers of the model are learned; buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def _bilinear_flops(*args: object, out_shape: torch.Size, **kwargs: object) -> int:
    # Each number read between pixels is a sum of four products.
    return 2 * 4 * int(out_shape.numel())


def _multiply_add_flops(*args: object, out_shape: torch.Size, **kwargs: object) -> int:
    return 2 * int(out_shape.numel())


_aten = torch.ops.aten
_UNCOUNTED = {
    **dict.fromkeys(
        (_aten.grid_sampler_2d, _aten.cudnn_grid_sampler, _aten.upsample_bilinear2d),
        _bilinear_flops,
    ),
    _aten.addcmul: _multiply_add_flops,
}


def macs(model: ImageModel, size: tuple[int, int]) -> int:
    """Return the multiply-adds of one forward pass of one image of `size` (H, W) in pixels.

    torch's FLOP counter, halved: convolutions, linear layers and attention. It counts bilinear
    sampling (`grid_sample`, `interpolate`) as nothing, so that is added here: four for each number
    of the output, so `4 * C * P * P` for a patch; nor does it count the weighted sums of local
    attention (`addcmul`), one for each number and each place of a window. Corner detectors count
    by the convolutions of their gradients and smoothing windows; as everywhere, what is done to
    each number on its own (activation, normalisation, the corner response, softmax) or only moves
    numbers (pooling, sorting, slices of whole pixels) does not count.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    counter = FlopCounterMode(display=False, custom_mapping=_UNCOUNTED)
    # The fused attention of evaluation is one operation that the counter knows nothing of.
    fused = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with evaluating(model), counter:
            model(_image(model, size))
    finally:
        mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 2


def latency_ms(model: ImageModel, size: tuple[int, int], repeats: int = 50) -> float:
    """Return the median milliseconds of a forward pass of one image, on one thread.

    Args:
        model: stays on its device; a GPU is waited for.
        size: height and width of the image in pixels.
        repeats: passes timed, after a few that are not.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(model):
            image = _image(model, size)
            seconds = [_seconds(model, image) for _ in range(repeats + 3)]
    finally:
        torch.set_num_threads(threads)
    return 1000 * statistics.median(seconds[3:])


def _seconds(model: ImageModel, image: Tensor) -> float:
    started = time.perf_counter()
    model(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - started


def _image(model: ImageModel, size: tuple[int, int]) -> Tensor:
    # Noise of its own generator: the caller's random numbers stay what they were.
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, model.in_channels, *size, generator=generator)
    return image.to(model.mean.device, model.mean.dtype)


PARAMETERS = Metric(
    "parameters",
    lambda subject: {"parameters": parameters(subject.model)},
    (Column("parameters", "parameters", "{:,}", "number of trainable parameters", "lower"),),
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
