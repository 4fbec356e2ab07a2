"""Position leakage: how well the keypoints alone predict the class."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.datasets import ImageSet
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError
from foveal.metrics.accuracy import mean_correct
from foveal.metrics.metric import Metric
from foveal.metrics.observing import observe_all
from foveal.metrics.subject import Given, Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

LEAST_IMAGES = 10  # to train the probe on
STEPS = 2000
BATCH = 512
CHECKS = 40  # times in a training that the held-out images choose the best probe


def position_leakage(
    model: ImageModel,
    train: ImageSet,
    test: ImageSet,
    seed: int = 0,
    *,
    batch_size: int = 500,
    observed: Explanation | None = None,
) -> float:
    """Return the accuracy on `test` of a probe of the keypoint coordinates alone.

    A detector sees the whole image, and may encode the class in where it puts the keypoints; its
    patches then explain nothing. The probe, a perceptron with two hidden layers of 128, is trained
    afresh on the keypoints that the frozen model finds in `train`. It reads them as the classifier
    receives them: at whole pixels where patches are slices, and with their scales where the model
    has some. Without any such code its accuracy is the frequency of the most common class.
    That image regions can encode the answer is shown by Jethani et al. 2021, "Have we learned to
    explain?".

    Args:
        model: a model with keypoints; its mode and device stay as they are.
        train: labelled images, best those that the model was trained on; at least 10.
        test: labelled images that the probe is not trained on.
        seed: of the probe; the caller's random numbers stay what they were.
        batch_size: images in one forward pass.
        observed: what `observe_all` returns for `test`, where it is known already.

    Raises:
        UserError: fewer than 10 training images.
    """
    if len(train) < LEAST_IMAGES:
        raise UserError(
            f"Expected at least {LEAST_IMAGES} images to train the probe on, but got {len(train)}."
        )
    observed = observed or observe_all(model, test.images, batch_size)
    seen = observe_all(model, train.images, batch_size)
    # The caller may measure without gradients; the probe needs its own.
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inputs, questions = _standardised(_places(seen), _places(observed))
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        probe = _trained(inputs, train.labels.clone(), classes)
        with torch.no_grad():
            return mean_correct(probe(questions), test.labels)


def _places(observed: Explanation) -> Tensor:
    """Return all that is known of the places, (N, 2 K) or with scales (N, 3 K)."""
    assert observed.keypoints is not None
    places = observed.keypoints.float().flatten(1)
    return (
        places if observed.scales is None else torch.cat([places, observed.scales.float()], dim=1)
    )


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, spread = train.mean(dim=0), train.std(dim=0)
    # A coordinate that never moves is nothing to learn from; rounding is not blown up to be.
    spread = torch.where(spread > 1e-5, spread, torch.ones_like(spread))
    return (train - mean) / spread, (test - mean) / spread


def _trained(inputs: Tensor, labels: Tensor, num_classes: int) -> nn.Module:
    """Return the probe that was best on a tenth of the images, kept out of its training."""
    probe = nn.Sequential(
        nn.Linear(inputs.shape[1], 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=STEPS)
    held, kept = torch.randperm(len(inputs)).tensor_split([len(inputs) // 10])
    best, least = probe, float("inf")
    for step in range(1, STEPS + 1):
        batch = kept[torch.randint(len(kept), (BATCH,))]
        optimizer.zero_grad()
        F.cross_entropy(probe(inputs[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
        if step % (STEPS // CHECKS) == 0:
            with torch.no_grad():
                loss = float(F.cross_entropy(probe(inputs[held]), labels[held]))
            if loss < least:
                best, least = copy.deepcopy(probe), loss
    return best


def _measure(subject: Subject) -> dict[str, float]:
    train = subject.train
    if train is None or len(train) < LEAST_IMAGES:
        return {}
    found = position_leakage(subject.model, train, subject.test, subject.seed, **subject.shared)
    return {"position_leakage": found}


POSITION_LEAKAGE = Metric(
    "position_leakage",
    _measure,
    (
        Column(
            "position_leakage",
            "leakage",
            "{:.2f}",
            "accuracy of a probe trained on keypoint coordinates alone, without pixels: "
            "the patches need not show what it can predict",
            "near chance level",
        ),
    ),
    needs=frozenset({Ability.KEYPOINTS, Given.TRAIN}),
)
