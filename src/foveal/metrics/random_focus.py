"""Random focus: the accuracy with another image's keypoints."""

from typing import cast

import torch
from torch import Tensor

from foveal.columns import Column
from foveal.data import ImageSet
from foveal.errors import UserError
from foveal.metrics.accuracy import share_equal
from foveal.metrics.looks import Looks, as_floats, evaluating, look_over
from foveal.metrics.metric import Metric
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.focus_model import FocusModel


def random_focus_accuracy(
    model: FocusModel,
    test: ImageSet,
    seed: int = 0,
    *,
    batch_size: int = 500,
    looks: Looks | None = None,
) -> float:
    """Return the accuracy with each image's keypoints replaced by those of another image.

    Where it is as good as the accuracy, the choice of keypoints did not matter. Each image lends
    its keypoints (and scales) to exactly one other, and none keeps its own.

    Args:
        model: a focus model; its mode and device stay as they are.
        test: at least two labelled images.
        seed: of the exchange; the caller's random numbers stay what they were.
        batch_size: images in one forward pass.
        looks: the model's looks at `test`, where they are known already.

    Raises:
        UserError: there is only one image.
    """
    looks = looks or look_over(model, test.images, batch_size)
    everyone = torch.arange(len(test))
    others = derangement(len(test), seed)
    predictions = predict_at(model, test.images, everyone, looks, others, batch_size)
    return share_equal(predictions, test.labels)


def predict_at(
    model: FocusModel,
    images: Tensor,
    pixels: Tensor,
    looks: Looks,
    places: Tensor,
    batch_size: int,
) -> Tensor:
    """Return the classes (M,) named for some images' pixels at other images' keypoints.

    Args:
        model: a focus model.
        images: (N, C, H, W), uint8.
        pixels: (M,) numbers of the images that are read.
        looks: the model's looks at `images`.
        places: (M,) numbers of the images whose keypoints and scales are used.
        batch_size: images in one forward pass.
    """
    assert looks.keypoints is not None
    device, predictions = model.mean.device, []
    with evaluating(model):
        for pixel, place in zip(pixels.split(batch_size), places.split(batch_size), strict=True):
            scales = None if looks.scales is None else looks.scales[place].to(device)
            keypoints = looks.keypoints[place].to(device)
            logits = model.classify_at(as_floats(model, images[pixel]), keypoints, scales)
            predictions.append(logits.argmax(dim=1).cpu())
    return torch.cat(predictions)


def derangement(count: int, seed: int) -> Tensor:
    """Return for each of `count` images another one: the next in a random circle of all."""
    if count < 2:
        raise UserError(f"Expected at least 2 images to exchange keypoints, but got {count}.")
    circle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(circle)
    other[circle] = circle.roll(-1)
    return other


def _measure(subject: Subject) -> dict[str, float]:
    model = cast(FocusModel, subject.model)  # as `needs` says
    found = random_focus_accuracy(model, subject.test, subject.seed, **subject.shared)
    return {"random_focus_accuracy": found}


RANDOM_FOCUS = Metric(
    "random_focus_accuracy",
    _measure,
    (
        Column(
            "random_focus_accuracy",
            "random focus",
            "{:.1%}",
            "accuracy with each image's keypoints replaced by those of another image",
            "for comparison",
        ),
    ),
    needs=frozenset({Ability.GIVEN_KEYPOINTS}),
)
