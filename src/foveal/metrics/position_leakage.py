"""Position leakage: accuracy of a probe that is given only the keypoint coordinates.

A probe is a small classifier that is trained to measure what information its inputs contain.
"""

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

MIN_PROBE_IMAGES = 10  # minimum number of images to train the probe on
HIDDEN_FEATURES = 128  # features of each hidden layer of the probe
STEPS = 2000  # training steps of the probe
BATCH_SIZE = 512  # images per training step of the probe
EVALUATIONS = 40  # number of evaluations on held-out images, from which the best probe is selected


def position_leakage(
    model: ImageModel,
    train: ImageSet,
    test: ImageSet,
    seed: int = 0,
    *,
    batch_size: int = 500,
    observed: Explanation | None = None,
) -> float:
    """Return the accuracy on `test` of a probe that is given only the keypoint coordinates.

    A detector reads the whole image and may encode the class in the positions of the keypoints. In
    that case the patches explain nothing (Jethani et al. 2021, "Have we learned to explain?"). The
    probe, a perceptron with two hidden layers, is trained on the model's keypoints in `train`. It
    receives them as the classifier does: at integer pixels if patches are slices, and with scales
    if the model has them. If the positions encode nothing, the accuracy is about the frequency of
    the most common class.

    Args:
        model: a model with keypoints; its mode and device are left unchanged.
        train: at least 10 labelled images, preferably the model's training images.
        test: labelled images that the probe is not trained on.
        seed: seed of the probe; the caller's random generators are left unchanged.
        batch_size: images per forward pass.
        observed: result of `observe_all` for `test`, if already computed.

    Raises:
        UserError: fewer than 10 training images.
    """
    if len(train) < MIN_PROBE_IMAGES:
        raise UserError(
            f"Expected at least {MIN_PROBE_IMAGES} images to train the probe, but got {len(train)}."
        )
    observed = observed or observe_all(model, test.images, batch_size)
    observed_train = observe_all(model, train.images, batch_size)
    # The caller may have disabled gradients, which the probe needs.
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inputs = _standardise(_coordinates(observed_train), _coordinates(observed))
        return _probe_accuracy(*inputs, train.labels.clone(), test.labels)


def _probe_accuracy(
    train_inputs: Tensor, test_inputs: Tensor, train_labels: Tensor, test_labels: Tensor
) -> float:
    """Return the accuracy on the test inputs of a probe that is trained on the others."""
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    probe = _train_probe(train_inputs, train_labels, num_classes)
    with torch.no_grad():
        return mean_correct(probe(test_inputs), test_labels)


def _coordinates(observed: Explanation) -> Tensor:
    """Return the keypoints' coordinates (N, 2 K), followed by their scales, if any: (N, 3 K)."""
    assert observed.keypoints is not None
    xy = observed.keypoints.float().flatten(1)
    return xy if observed.scales is None else torch.cat([xy, observed.scales.float()], dim=1)


def _standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs with the mean and the standard deviation of the training inputs removed."""
    mean, std = train.mean(dim=0), train.std(dim=0)
    # A constant coordinate is not divided, because that would amplify its rounding errors.
    std = torch.where(std > 1e-5, std, torch.ones_like(std))
    return (train - mean) / std, (test - mean) / std


def _train_probe(inputs: Tensor, labels: Tensor, num_classes: int) -> nn.Module:
    """Return the probe with the lowest loss on a held-out tenth of the images."""
    probe = nn.Sequential(
        nn.Linear(inputs.shape[1], HIDDEN_FEATURES),
        nn.ReLU(),
        nn.Linear(HIDDEN_FEATURES, HIDDEN_FEATURES),
        nn.ReLU(),
        nn.Linear(HIDDEN_FEATURES, num_classes),
    )
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=STEPS)
    held_out, training = torch.randperm(len(inputs)).tensor_split([len(inputs) // 10])
    best_probe, lowest_loss = probe, float("inf")
    for step in range(1, STEPS + 1):
        batch = training[torch.randint(len(training), (BATCH_SIZE,))]
        optimizer.zero_grad()
        F.cross_entropy(probe(inputs[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
        if step % (STEPS // EVALUATIONS) == 0:
            with torch.no_grad():
                loss = float(F.cross_entropy(probe(inputs[held_out]), labels[held_out]))
            if loss < lowest_loss:
                best_probe, lowest_loss = copy.deepcopy(probe), loss
    return best_probe


def _measure(subject: Subject) -> dict[str, float]:
    """Return the position leakage of a subject with enough training images, or nothing."""
    train = subject.train
    if train is None or len(train) < MIN_PROBE_IMAGES:
        return {}
    value = position_leakage(subject.model, train, subject.test, subject.seed, **subject.shared)
    return {"position_leakage": value}


POSITION_LEAKAGE = Metric(
    "position_leakage",
    _measure,
    (
        Column(
            "position_leakage",
            "leakage",
            "{:.1%}",
            "accuracy of a probe that predicts the class from keypoint coordinates alone: how much "
            "the positions reveal without any pixel",
            "near chance level",
        ),
    ),
    needs=frozenset({Ability.KEYPOINTS, Given.TRAIN}),
)
