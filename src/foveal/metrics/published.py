"""Published metrics of explanations: metrics of other papers, computed by Quantus.

Quantus is licensed under the GPLv3 and is a separate extra, imported only here and on first use.

By default it divides attributions by their maximum and, for MPRT, takes absolute values. Both are
disabled here (`RAW`), because signs and scale are part of a map. Metrics that depend only on the
order of the pixels are given their ranks. Pixels of equal heat, as within a patch or a cell of a
coarse map, are ranked at random, so that a uniform map scores like a random one.
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
from foveal.metrics.published_case import NO_SCORE, Case, Explain, Probabilities, Score
from foveal.metrics.truth import check_truth

PERCENTAGES = tuple(range(10, 100, 10))  # percentages of the pixels that ROAD removes
FLIPS = 32  # approximate number of steps in which pixel flipping removes all pixels
RAW = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


def pixel_flipping(case: Case) -> Score:
    """Measure the label's probability while pixels are blackened, hottest first; lower is better.

    Bach et al. 2015, "On pixel-wise explanations for non-linear classifier decisions by layer-wise
    relevance propagation". The result is the mean of the curve over its steps, the last of which
    leaves a black image. Black is the minimum value of the image, Quantus' default. A step may end
    between two channels of a pixel.
    """
    pixel_count = case.heat[0].numel()
    max_step = max(1, case.images[0].numel() // FLIPS)
    # Quantus requires that a step divides the number of pixels.
    step = next(n for n in range(max_step, 0, -1) if pixel_count % n == 0)
    metric = _quantus().PixelFlipping(features_in_step=step, perturb_baseline="black", **RAW)
    curves = case.run(metric, case.ranks()[:, None])
    return _mean(sum(curve) / len(curve) for curve in curves)


def road(case: Case) -> Score:
    """Measure the accuracy with the hottest pixels imputed from neighbours; lower is better.

    ROAD, Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution
    methods": 10, 20, … 90% of the pixels are imputed by noisy linear interpolation (noise of 0.01
    as in the paper), and the accuracies are averaged. Measured on a sample.
    """
    case = case.random_sample()
    metric = _quantus().ROAD(percentages=list(PERCENTAGES), noise=0.01, **RAW)
    # Quantus counts and sorts the values of all channels, but removes pixels. Therefore its number
    # of pixels is set here, and the ranks are given in the first channel.
    metric.a_size = case.heat[0].numel()
    ranks = torch.zeros_like(case.images)
    ranks[:, 0] = case.ranks()
    # Quantus would average only the first of several batches.
    accuracies = case.run(metric, ranks, batch_size=len(case))
    return Score(float(sum(accuracies.values())) / len(PERCENTAGES), len(case))


def pointing_game(case: Case) -> Score:
    """Measure how often the hottest pixel is in the mask.

    Zhang et al. 2018, "Top-down neural attention by excitation backprop", without the paper's
    tolerance. Quantus counts an empty mask as a hit, so images with an empty mask are skipped. It
    also counts a hit if any of several hottest pixels is inside, so one of them is drawn at random
    here.
    """
    return _measure_in_masks("PointingGame", case, case.ranks())


def relevance_mass_accuracy(case: Case) -> Score:
    """Measure the fraction of positive heat in the mask.

    Arras et al. 2022, "CLEVR-XAI", where relevance is non-negative: negative heat, which Quantus
    would subtract, is set to 0. Images with an empty mask or without positive heat are skipped.
    """
    return _measure_in_masks("RelevanceMassAccuracy", case, case.heat.clamp(min=0))


def mprt(case: Case) -> Score:
    """Measure the similarity of explanations of the model and a randomised copy; lower is better.

    This is the model parameter randomisation test of Adebayo et al. 2018, "Sanity checks for
    saliency maps". The similarity is Spearman's rank correlation of signed heat, which is 1 if the
    explanation does not depend on the model. Only the end of the paper's cascade is measured, with
    all layers (modules with `reset_parameters`) randomised, because the intermediate results depend
    on the order of the layers (Hedström et al. 2023, "Sanity checks revisited"). Uniform maps have
    no order and are skipped; if only the copy's is uniform, the score is 0. Measured on a sample.
    """
    scores = _randomisation_scores("MPRT", case, skip_layers=True, return_last_correlation=True)
    return _mean(0.0 if math.isnan(score) else score for score in scores)


def efficient_mprt(case: Case) -> Score:
    """Measure the relative increase of a map's entropy in a randomised copy; higher is better.

    Hedström et al. 2023, "Sanity checks revisited": the entropy of a histogram of 100 bins, before
    and after all layers are randomised. The increase is 0 if the explanation does not depend on the
    model. Images and layers are those of `mprt`. Quantus' smooth MPRT takes no custom explanations.
    """
    return _mean(_randomisation_scores("EfficientMPRT", case))


class Published(NamedTuple):
    """A published metric and its column in tables; None if tables show Foveal's own version."""

    measure: Callable[[Case], Score]
    column: Column | None


METRICS: dict[str, Published] = {
    "pixel_flipping": Published(
        pixel_flipping,
        Column(
            "published_pixel_flipping",
            "pixel flipping",
            "{:.2f}",
            "probability of the explained class while pixels are blackened, the hottest first "
            "(Bach et al. 2015)",
            "lower",
        ),
    ),
    "road": Published(
        road,
        Column(
            "published_road",
            "ROAD",
            "{:.2f}",
            "how often the explained class is predicted with the hottest pixels imputed from their "
            "neighbours (Rong et al. 2022)",
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
            "fraction of the positive heat in the annotated region (Arras et al. 2022)",
            "higher",
        ),
    ),
    "mprt": Published(
        mprt,
        Column(
            "published_mprt",
            "MPRT",
            "{:.2f}",
            "rank correlation with the explanation of a copy of the model with random weights, 1 "
            "if the explanation does not depend on the model (Adebayo et al. 2018)",
            "lower",
        ),
    ),
    "efficient_mprt": Published(
        efficient_mprt,
        Column(
            "published_efficient_mprt",
            "eMPRT",
            "{:.2f}",
            "relative increase of the map's entropy in a copy of the model with random weights "
            "(Hedström et al. 2023)",
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
        "number of images that the metrics computed by Quantus were measured on",
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
    """Return published metrics of an explanation as means over images, with the image counts.

    Args:
        model: the explained classifier, images in [0, 1] -> logits; it and the caller's random
            generators are left unchanged.
        explanation: explanation of B images, with maps or patches; its heat is measured.
        labels: (B,) indices of the explained classes: true labels or `explanation.predictions`.
        names: names in `METRICS`, in the order of the result.
        masks: (B, H, W) or (B, 1, H, W), above 0 in the annotated region; without them pointing
            game and relevance mass accuracy are skipped.
        sample: number of random images for ROAD and both MPRT metrics.
        seed: seed of random draws, noise and random weights.
        explain: see `Explain`, such as `lambda m, images, _: m.explain(images).heat`; without it
            both MPRT metrics are skipped.
        batch_size: images per forward pass; bounds the memory.

    Returns:
        The mean of each metric, and under `NAME_images` its number of images. Metrics without any
        measurable image are omitted; no value is NaN.

    Raises:
        UserError: Quantus is missing, a name is unknown, the sample is empty, or the labels or the
            heat of `explain` have the wrong shape.
        ValueError: the masks have the wrong shape, or there is no heat.
    """
    _check(explanation, labels, names, sample)
    truth = None if masks is None else check_truth(explanation, masks).cpu()
    with _preserved_state(model, seed):
        wrapped = Probabilities(model, batch_size).eval()
        images, heat = explanation.images.float(), explanation.heat.float()
        case = Case(wrapped, images, labels.cpu().long(), heat, truth, explain, sample, seed)
        return _measure(case, names)


def _measure(case: Case, names: Sequence[str]) -> dict[str, float]:
    """Return the mean and the number of images of each metric that can be measured."""
    figures: dict[str, float] = {}
    for name in names:
        score = METRICS[name].measure(case)
        if score.image_count:
            figures |= {name: score.mean, f"{name}_images": score.image_count}
    return figures


def _check(explanation: Explanation, labels: Tensor, names: Sequence[str], sample: int) -> None:
    _quantus()
    for name in names:
        if name not in METRICS:
            raise unknown_name("published metric", name, METRICS)
    image_count, class_count = explanation.logits.shape
    if sample < 1 or image_count < 1:
        raise UserError(f"Expected at least 1 image, but got {min(sample, image_count)}.")
    if labels.shape != (image_count,):
        raise UserError(f"Expected labels ({image_count},), but got {tuple(labels.shape)}.")
    if labels.min() < 0 or labels.max() >= class_count:
        raise UserError(
            f"Expected labels from 0 to {class_count - 1}, the model's classes, but got labels "
            f"from {labels.min()} to {labels.max()}."
        )


def _quantus() -> ModuleType:
    try:
        import quantus
    except ModuleNotFoundError:
        raise missing_extra("quantus", "quantus") from None
    return quantus


@contextmanager
def _preserved_state(model: nn.Module, seed: int) -> Iterator[None]:
    """Restore on exit the model, global random generators, warnings and Quantus' model cache."""
    numpy_state = np.random.get_state()  # noqa: NPY002  # Quantus draws from the global generator
    devices = list(range(torch.cuda.device_count()))
    try:
        with (
            evaluating(model, gradients=True),
            torch.random.fork_rng(devices),
            warnings.catch_warnings(),
        ):
            for module in ("quantus", "scipy", "numpy"):
                warnings.filterwarnings("ignore", module=module)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        _quantus().PyTorchModel._get_last_softmax_layer_index.cache_clear()


def _mean(values: Iterable[float]) -> Score:
    scores = [float(value) for value in values]
    return Score(sum(scores) / len(scores), len(scores)) if scores else NO_SCORE


def _measure_in_masks(name: str, case: Case, heat: Tensor) -> Score:
    """Measure a metric of heat and mask, by its name in Quantus, on the images that have both."""
    if case.masks is None:
        return NO_SCORE
    measurable = case.masks.flatten(1).any(dim=1) & heat.flatten(1).any(dim=1)
    if not measurable.any():
        return NO_SCORE
    # Quantus rejects a batch of uniform maps; a row of zeros changes neither fraction nor maximum.
    inputs = (case.images, heat[:, None], case.masks[:, None])
    images, heat, masks = (F.pad(tensor[measurable], (0, 0, 0, 1)) for tensor in inputs)
    case = replace(case.subset(measurable), images=images)
    return _mean(case.run(getattr(_quantus(), name)(**RAW), heat, s_batch=masks.numpy()))


def _randomisation_scores(name: str, case: Case, **settings: bool) -> list[float]:
    """Return the scores of a sample of images with non-uniform maps; none if unmeasurable.

    Quantus rejects a batch of uniform maps, which a randomised model may have. Therefore an image
    with a ramp as its heat is prepended, and its score omitted. Heat is rescaled to [0, 1], which
    leaves ranks and bins unchanged, because the range of nearly uniform maps may be too small for a
    histogram of 100 bins.
    """
    is_varied = case.heat.amax(dim=(1, 2)) > case.heat.amin(dim=(1, 2))
    case = case.subset(is_varied).random_sample()
    has_layers = any(hasattr(module, "reset_parameters") for module in case.model.modules())
    if case.explain is None or len(case) == 0 or not has_layers:
        return []
    explain, shape = case.explain, case.heat.shape
    ramp = torch.linspace(0, 1, case.heat[0].numel()).reshape(1, *shape[1:])

    def explain_with_ramp(
        model: Probabilities, inputs: np.ndarray, targets: np.ndarray, **_: object
    ) -> np.ndarray:
        heat = explain(model.model, torch.from_numpy(inputs[1:]), torch.from_numpy(targets[1:]))
        if heat.shape != shape:
            raise UserError(
                f"Expected heat {tuple(shape)} from explain, but got {tuple(heat.shape)}."
            )
        return torch.cat([ramp, _rescale(heat.detach().cpu())])[:, None].numpy()

    heat = torch.cat([ramp, _rescale(case.heat)])[:, None]
    case = case.subset(torch.tensor([0, *range(len(case))]))
    metric = getattr(_quantus(), name)(layer_order="bottom_up", seed=case.seed, **settings, **RAW)
    scores = case.run(metric, heat, explain_func=explain_with_ramp, batch_size=len(case))
    return [float(score) for score in scores][1:]  # without that of the ramp


def _rescale(heat: Tensor) -> Tensor:
    """Return heat (B, H, W) with each map rescaled to [0, 1], or 0 if it is uniform."""
    heat = heat.double()
    low, high = heat.amin(dim=(1, 2), keepdim=True), heat.amax(dim=(1, 2), keepdim=True)
    return ((heat - low) / (high - low).where(high > low, 1)).float()
