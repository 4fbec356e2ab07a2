"""The field's published metrics, as Quantus computes them.

Quantus stands under the GPLv3 and is an extra of its own: only this file imports it, when called.

By default it divides attributions by their greatest, and for MPRT takes absolute values. Here it
does neither (`RAW`): signs and scale are part of a map. A metric that knows only the order of the
pixels gets that order, in which a draw decides between pixels that count alike, as within a patch
or a cell of a coarse map: an even map scores what a draw scores.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError, missing_extra, unknown_name
from foveal.metrics.observing import evaluating
from foveal.metrics.published_case import NOTHING, Case, Explain, Measured, Probabilities
from foveal.metrics.truth import check_truth

PERCENTAGES = tuple(range(10, 100, 10))  # of the pixels, that ROAD removes
FLIPS = 32  # steps, or a few more, in which pixel flipping removes all of them
RAW = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


def pixel_flipping(case: Case) -> Measured:
    """Measure the label's probability while pixels are blackened, the hottest first; low is better.

    Bach et al. 2015, "On pixel-wise explanations for non-linear classifier decisions by layer-wise
    relevance propagation": the mean of the curve over its steps, the last of which leaves a black
    image. Black is the least value in the image, Quantus' default. A step may end between two
    channels of a pixel.
    """
    pixels, greatest = case.heat[0].numel(), max(1, case.images[0].numel() // FLIPS)
    step = next(n for n in range(greatest, 0, -1) if pixels % n == 0)  # as Quantus wants it
    metric = _quantus().PixelFlipping(features_in_step=step, perturb_baseline="black", **RAW)
    curves = case.ask(metric, case.order()[:, None])
    return _over(sum(curve) / len(curve) for curve in curves)


def road(case: Case) -> Measured:
    """Measure the accuracy with the hottest pixels painted over by their neighbours; low is better.

    ROAD, Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution
    methods": a share of 10, 20, … 90 % of the pixels is imputed by noisy linear interpolation
    (noise of 0.01, as theirs), and the accuracies are averaged. Measured on a sample.
    """
    case = case.drawn()
    metric = _quantus().ROAD(percentages=list(PERCENTAGES), noise=0.01, **RAW)
    # It counts and sorts each channel's pixels as pixels of their own, but removes pixels: so it
    # is told how many there are, and all of the order is in the first channel.
    metric.a_size = case.heat[0].numel()
    order = torch.zeros_like(case.images)
    order[:, 0] = case.order()
    # Of several batches it averages the first alone.
    accuracies = case.ask(metric, order, batch_size=len(case))
    return Measured(float(sum(accuracies.values())) / len(PERCENTAGES), len(case))


def pointing_game(case: Case) -> Measured:
    """Measure how often the hottest pixel lies in the mask.

    Zhang et al. 2018, "Top-down neural attention by excitation backprop", without their tolerance.
    Quantus takes an empty mask for a hit: images that have one are left out. It takes it for a hit
    too if any of several hottest pixels is inside: here one of them is drawn.
    """
    return _in_masks("PointingGame", case, case.order())


def relevance_mass_accuracy(case: Case) -> Measured:
    """Measure the share of the positive heat that lies in the mask.

    Arras et al. 2022, "CLEVR-XAI", whose relevance is never below 0: negative heat, which Quantus
    would count against the rest, is taken as 0. Images with an empty mask, or without positive
    heat, have no such share and are left out.
    """
    return _in_masks("RelevanceMassAccuracy", case, case.heat.clamp(min=0))


def mprt(case: Case) -> Measured:
    """Measure how alike the explanations of the model and of a randomised copy are; low is better.

    The model parameter randomisation test, Adebayo et al. 2018, "Sanity checks for saliency maps":
    Spearman's rank correlation of signed heat, 1 where the explanation does not ask the model. Of
    their cascade it is the end alone, with every layer drawn anew: what is found on the way depends
    on the order of the layers (Hedström et al. 2023, "Sanity checks revisited"). A layer is what
    has `reset_parameters`. Even maps have no order to lose and are left out; where only the copy's
    is even, nothing is left and the likeness is 0. Measured on a sample.
    """
    found = _randomised("MPRT", case, skip_layers=True, return_last_correlation=True)
    return _over(0.0 if math.isnan(value) else value for value in found)


def efficient_mprt(case: Case) -> Measured:
    """Measure by what share the entropy of a map rises in a randomised copy; high is better.

    Hedström et al. 2023, "Sanity checks revisited": the entropy of a histogram of 100 bins, before
    and after every layer is drawn anew; 0 where the explanation does not ask the model. Images and
    layers as in `mprt`. (Their smooth test cannot ask an explanation of one's own.)
    """
    return _over(_randomised("EfficientMPRT", case))


class Published(NamedTuple):
    """A published metric and its column in tables, or None where ours stands there."""

    measure: Callable[[Case], Measured]
    column: Column | None


METRICS: dict[str, Published] = {
    "pixel_flipping": Published(
        pixel_flipping,
        Column(
            "published_pixel_flipping",
            "pixel flipping",
            "{:.2f}",
            "published (Bach et al. 2015): probability of the explained class while pixels are "
            "blackened, those of most heat first",
            "lower",
        ),
    ),
    "road": Published(
        road,
        Column(
            "published_road",
            "ROAD",
            "{:.2f}",
            "published (Rong et al. 2022): accuracy with the pixels of most heat imputed from "
            "their neighbours",
            "lower",
        ),
    ),
    "pointing_game": Published(pointing_game, None),
    "relevance_mass_accuracy": Published(
        relevance_mass_accuracy,
        Column(
            "published_relevance_mass_accuracy",
            "relevance mass",
            "{:.1%}",
            "published (Arras et al. 2022): fraction of the positive heat in the annotated region",
            "higher",
        ),
    ),
    "mprt": Published(
        mprt,
        Column(
            "published_mprt",
            "MPRT",
            "{:.2f}",
            "published (Adebayo et al. 2018): rank correlation with the explanation of a copy of "
            "the model with random weights; 1 if the explanation does not depend on the model",
            "lower",
        ),
    ),
    "efficient_mprt": Published(
        efficient_mprt,
        Column(
            "published_efficient_mprt",
            "eMPRT",
            "{:.2f}",
            "published (Hedström et al. 2023): relative increase of the map's entropy in a copy of "
            "the model with random weights",
            "higher",
        ),
    ),
}
COLUMNS = (
    *(metric.column for metric in METRICS.values() if metric.column is not None),
    Column(
        "published_images",
        "images",
        "{:.0f}",
        "number of images that the published metrics were measured on",
        "for comparison",
    ),
)


def published(
    model: nn.Module,
    explanation: Explanation,
    labels: Tensor,
    names: Sequence[str] = tuple(METRICS),
    masks: Tensor | None = None,
    sample: int = 100,
    seed: int = 0,
    *,
    explain: Explain | None = None,
    batch_size: int = 64,
) -> dict[str, float]:
    """Return the field's metrics of an explanation: means over images, each with their number.

    Args:
        model: the classifier that was explained, images in [0, 1] -> logits; its mode, device and
            weights, and the caller's random numbers, stay what they were.
        explanation: of B images, with maps or patches; their heat is measured.
        labels: (B,) the classes that the heat is to speak for: the images' own, or
            `explanation.predictions`.
        names: some of `METRICS`, in the order in which they are returned.
        masks: (B, H, W) or (B, 1, H, W), above 0 where the truth lies; without them the pointing
            game and the relevance mass accuracy are left out.
        sample: images, drawn at random, that ROAD and the two MPRT are measured on.
        seed: of the draws, the noise and the random weights.
        explain: (model, images (B, C, H, W), targets (B,)) -> heat (B, H, W), the same method for
            any model, with the labels as targets, such as `lambda m, images, _:
            m.explain(images).heat`; without it the two MPRT are left out.
        batch_size: images in one forward pass; bounds the memory.

    Returns:
        For each name its mean and under `NAME_images` the number of images that it is over. What
        can be measured on none of them is left out; no value is NaN.

    Raises:
        UserError: Quantus is not installed, a name is unknown, the labels or the heat of `explain`
            do not fit, or the sample is empty.
        ValueError: the masks do not fit, or there is no heat.
    """
    _check(explanation, labels, names, sample)
    truth = None if masks is None else check_truth(explanation, masks).cpu()
    figures: dict[str, float] = {}
    with _left_as_it_was(model, seed):
        asked = Probabilities(model, batch_size).eval()
        images, heat = explanation.images.float(), explanation.heat.float()
        case = Case(asked, images, labels.cpu().long(), heat, truth, explain, sample, seed)
        for name in names:
            found = METRICS[name].measure(case)
            if found.images:
                figures |= {name: found.mean, f"{name}_images": found.images}
    return figures


def _check(explanation: Explanation, labels: Tensor, names: Sequence[str], sample: int) -> None:
    _quantus()
    for name in names:
        if name not in METRICS:
            raise unknown_name("published metric", name, METRICS)
    images, classes = explanation.logits.shape
    if sample < 1 or images < 1:
        raise UserError(f"Expected at least one image, but got {min(sample, images)}.")
    if labels.shape != (images,):
        raise UserError(f"Expected labels ({images},), but got {tuple(labels.shape)}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"Expected labels from 0 to {classes - 1}, the model's classes, but got labels from "
            f"{labels.min()} to {labels.max()}."
        )


def _quantus() -> ModuleType:
    try:
        import quantus
    except ModuleNotFoundError:
        raise missing_extra("quantus", "quantus") from None
    return quantus


@contextmanager
def _left_as_it_was(model: nn.Module, seed: int) -> Iterator[None]:
    """Run Quantus, which seeds the global generators, warns of much and keeps every model."""
    state = np.random.get_state()  # noqa: NPY002  # Quantus draws from the global generator
    devices = list(range(torch.cuda.device_count()))
    try:
        with (
            evaluating(model, gradients=True),
            torch.random.fork_rng(devices),
            warnings.catch_warnings(),
        ):
            for source in ("quantus", "scipy", "numpy"):
                warnings.filterwarnings("ignore", module=source)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        _quantus().PyTorchModel._get_last_softmax_layer_index.cache_clear()


def _over(values: Iterable[float]) -> Measured:
    known = [float(value) for value in values]
    return Measured(sum(known) / len(known), len(known)) if known else NOTHING


def _in_masks(name: str, case: Case, heat: Tensor) -> Measured:
    """Measure heat (B, H, W), none of it negative, where there is some and a mask to compare."""
    if case.masks is None:
        return NOTHING
    known = case.masks.flatten(1).any(dim=1) & heat.flatten(1).any(dim=1)
    if not known.any():
        return NOTHING
    # Quantus refuses a batch of even maps: a row of nothing below changes neither share nor peak.
    rows = (case.images, heat[:, None], case.masks[:, None])
    images, heat, masks = (F.pad(tensor[known], (0, 0, 0, 1)) for tensor in rows)
    case = replace(case.part(known), images=images)
    return _over(case.ask(getattr(_quantus(), name)(**RAW), heat, s_batch=masks.numpy()))


def _randomised(name: str, case: Case, **settings: bool) -> list[float]:
    """Return what an MPRT says of each image whose map is not even; nothing if it cannot be asked.

    Quantus refuses a batch of even maps, as a randomised model's may be: ahead of the images stands
    one whose heat is a ramp. Heat is stretched from 0 to 1, as nearly even maps have less room
    between their ends than a histogram's 100 bins need; neither ranks nor bins change by it.
    """
    case = case.part(case.heat.amax(dim=(1, 2)) > case.heat.amin(dim=(1, 2))).drawn()
    layers = any(hasattr(module, "reset_parameters") for module in case.model.modules())
    if case.explain is None or len(case) == 0 or not layers:
        return []
    explain, shape = case.explain, case.heat.shape
    ramp = torch.linspace(0, 1, case.heat[0].numel()).reshape(1, *shape[1:])

    def explained(
        model: Probabilities, inputs: np.ndarray, targets: np.ndarray, **_: object
    ) -> np.ndarray:
        heat = explain(model.model, torch.from_numpy(inputs[1:]), torch.from_numpy(targets[1:]))
        if heat.shape != shape:
            raise UserError(
                f"Expected heat {tuple(shape)} from explain, but got {tuple(heat.shape)}."
            )
        return torch.cat([ramp, _stretched(heat.detach().cpu())])[:, None].numpy()

    heat = torch.cat([ramp, _stretched(case.heat)])[:, None]
    case = case.part(torch.tensor([0, *range(len(case))]))
    metric = getattr(_quantus(), name)(layer_order="bottom_up", seed=case.seed, **settings, **RAW)
    found = case.ask(metric, heat, explain_func=explained, batch_size=len(case))
    return [float(value) for value in found][1:]


def _stretched(heat: Tensor) -> Tensor:
    """Return heat (B, H, W) of which each map goes from 0 to 1, or is 0 where it is even."""
    heat = heat.double()
    low, high = heat.amin(dim=(1, 2), keepdim=True), heat.amax(dim=(1, 2), keepdim=True)
    return ((heat - low) / (high - low).where(high > low, 1)).float()
