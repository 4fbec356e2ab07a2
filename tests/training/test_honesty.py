"""Honest training: objectives that keep class information out of the locations of a focus model.

The terms are an adversary (probes that predict the class from the locations, whose gradient is
reversed), the dependence between locations and classes, and swapped content of patches. In the
settling phase, the last fraction `honesty.settle` of the training, the locations no longer change.
"""

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import nn

from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError
from foveal.images import WholeView
from foveal.metrics import content_following, position_leakage
from foveal.models import build_model
from foveal.training import load_recipe, parse_recipe, train
from foveal.training.objectives.classification.objective import Classification
from foveal.training.objectives.honesty.adversarial import reverse_gradient
from foveal.training.objectives.honesty.dependence import dependence
from foveal.training.objectives.honesty.terms import HonestyTerms, Step

SIDE = 16


def test_gradient_reversal_keeps_values_and_negates_gradients():
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    output = reverse_gradient(values, 0.5)
    assert output.equal(values)
    (output * torch.tensor([3.0, 4.0])).sum().backward()
    assert values.grad.tolist() == [-1.5, -2.0]


def test_dependence_is_high_only_if_locations_encode_the_class():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=generator)
    independent = torch.rand(400, 6, generator=generator) * 2 - 1
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    encoding = torch.cat([corners[labels] * 0.7, independent[:, :4] * 0.05], dim=1)
    assert dependence(encoding, labels) > 0.9
    assert dependence(independent, labels) < 0.15
    order = torch.randperm(400, generator=generator)
    assert torch.allclose(dependence(encoding[order], labels[order]), dependence(encoding, labels))


def test_dependence_equals_its_formula():
    locations, labels = torch.rand(7, 4).double(), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    kernel = torch.zeros(7, 7).double()
    same_class = torch.zeros(7, 7).double()
    for i in range(7):
        for j in range(7):
            distance = float((locations[i] - locations[j]).square().sum())
            kernel[i, j] = sum(
                torch.exp(torch.tensor(-distance / (2 * w * w))) for w in (0.1, 0.3, 1)
            )
            same_class[i, j] = labels[i] == labels[j]
    centring = torch.eye(7).double() - 1 / 7
    locations_kernel = centring @ kernel @ centring
    labels_kernel = centring @ same_class @ centring
    norms = locations_kernel.norm() * labels_kernel.norm()
    expected = (locations_kernel * labels_kernel).sum() / norms
    assert torch.allclose(dependence(locations, labels), expected, atol=1e-6)


def shortcut_set(count, seed, split):
    """Return images whose class a keypoint could encode by its location.

    The class is a pattern of 2x2 pixels in the centre; the rest is dim noise, where a keypoint may
    lie anywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.randint(0, 20, (count, 1, SIDE, SIDE), generator=generator)
    patterns = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    pixels = patterns[labels].reshape(count, 2, 2) * 200
    images[:, 0, 7:9, 7:9] = pixels
    return ImageSet("shortcut", split, images.to(torch.uint8), labels, tuple("abcd"))


def make_model():
    """Return a focus model with one keypoint, always with the same weights."""
    torch.manual_seed(0)
    return build_model(
        {
            "name": "focus",
            "detector": {"name": "heatmap", "keypoints": 1},
            "patch_size": 4,
            "num_classes": 4,
            "width": 32,
        }
    )


def train_toy(honesty, steps=400):
    """Return a model trained with given honesty settings, and its training set."""
    recipe = parse_recipe({"name": "toy", "model": {"name": "focus"}, "honesty": honesty})
    model = make_model()
    module = Classification(model, recipe, steps)
    optimizer = module.configure_optimizers()["optimizer"]
    train_set = shortcut_set(2000, 0, "train")
    model.train()
    module.log = lambda *arguments, **settings: None
    for step in range(steps):
        indices = torch.arange(step * 100, step * 100 + 100) % len(train_set)
        optimizer.zero_grad()
        batch = train_set.images[indices], train_set.labels[indices]
        module.training_step(batch, step).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3
        optimizer.step()
    return model.eval(), train_set


@pytest.fixture(scope="module")
def plain_scores():
    """The leakage and content following of a model trained without honesty terms."""
    return scores(*train_toy({}))


def scores(model, train_set):
    """Return the position leakage and the content following of a model."""
    test_set = shortcut_set(600, 1, "test")
    leakage = position_leakage(model, train_set, test_set)
    return leakage, content_following(model, test_set, 500).content_following


@pytest.mark.parametrize(
    "honesty",
    [
        {"adversary": 1.0, "swap": 1.0},
        {"dependence": 2.0, "swap": 1.0},
        {"adversary": 1.0, "swap": 1.0, "still": True},
        {"adversary": 1.0, "swap": 1.0, "probes": 3},
    ],
)
def test_honest_training_lowers_leakage_and_raises_content_following(honesty, plain_scores):
    leakage, content = scores(*train_toy(honesty))
    plain_leakage, plain_content = plain_scores
    assert leakage < plain_leakage - 0.1
    assert content > plain_content


def test_the_probes_are_trained_but_not_saved():
    recipe = load_recipe("mnist-5k-focus", ["honesty.adversary=0.5", "honesty.probes=2"])
    model = build_model({**recipe.model, "num_classes": 10})
    module = Classification(model, recipe, 10)
    optimized = {
        id(p)
        for group in module.configure_optimizers()["optimizer"].param_groups
        for p in group["params"]
    }
    assert optimized == {id(p) for p in module.parameters()}
    assert not any("probe" in name for name in model.state_dict())


def _honesty_loss(honesty, progress, moves=None, identical_probes=False):
    """Return the honesty loss, and the sum of its absolute gradients in the detector.

    Args:
        honesty: the honesty settings.
        progress: fraction of the training that is done, from 0 to 1.
        moves: (B, 2, 3), the affine maps of the augmentation; None for images as they are.
        identical_probes: whether all probes have the weights of the first.
    """
    train_set = shortcut_set(200, 0, "train")
    model = make_model()
    terms = HonestyTerms(
        model, 1, parse_recipe({"name": "toy", "model": {"name": "focus"}, "honesty": honesty})
    )
    for probe in terms.adversarial.probes[1:] if identical_probes else ():
        probe.load_state_dict(terms.adversarial.probes[0].state_dict())
    images = train_set.images.float() / 255
    view = WholeView(images)
    loss = terms(model, Step(view, model.observe(view), train_set.labels, moves, progress))
    loss.backward()
    gradients = [p.grad for p in model.detector.parameters() if p.grad is not None]
    return float(loss.detach()), sum(float(gradient.abs().sum()) for gradient in gradients)


def test_several_identical_probes_give_the_gradient_of_a_single_one():
    loss, gradient = _honesty_loss({"adversary": 1.0}, 1.0, identical_probes=True)
    loss_of_three, gradient_of_three = _honesty_loss(
        {"adversary": 1.0, "probes": 3}, 1.0, identical_probes=True
    )
    assert loss_of_three == pytest.approx(3 * loss, rel=1e-4)
    assert gradient_of_three == pytest.approx(gradient, rel=1e-3)


def test_the_gradient_of_the_terms_grows_during_the_ramp():
    honesty = {"dependence": 1.0, "adversary": 1.0}
    without_ramp = _honesty_loss(honesty, 0.0)
    honesty["ramp"] = 0.5
    start, half, end = (_honesty_loss(honesty, progress) for progress in (0.0, 0.25, 0.5))
    (_, start_gradient), (_, half_gradient), (_, end_gradient) = start, half, end
    assert start_gradient == 0
    assert half_gradient == pytest.approx(end_gradient / 2, rel=1e-3)
    assert end == pytest.approx(without_ramp)


def test_only_the_head_is_trained_in_the_settling_phase():
    train_set = shortcut_set(200, 0, "train")
    images = train_set.images.float() / 255
    honesty = {"adversary": 1.0, "dependence": 1.0, "settle": 0.25}
    recipe = parse_recipe({"name": "toy", "model": {"name": "focus"}, "honesty": honesty})
    for progress, is_settled in ((0.74, False), (0.75, True)):
        model = make_model()
        terms = HonestyTerms(model, 1, recipe)
        view = WholeView(images)
        observed = terms.observe(model, view, progress)
        honesty_loss = terms(model, Step(view, observed, train_set.labels, None, progress))
        (F.cross_entropy(observed.logits, train_set.labels) + honesty_loss).backward()
        has_gradient = [
            any(p.grad is not None for p in part.parameters())
            for part in (model.detector, terms.adversarial.probes, model.head)
        ]
        assert has_gradient == [not is_settled, not is_settled, True]
        explanation = model.eval().observe(WholeView(images))
        assert torch.allclose(observed.keypoints, explanation.keypoints) == is_settled


def test_the_detector_does_not_change_in_the_settling_phase(tmp_path):
    changes = ["epochs=2", "data.limit=400", "average=0", "keep=last", "honesty.adversary=0.1"]
    recipe = load_recipe("mnist-5k-focus", [*changes, "honesty.settle=0.5"])
    weights = []

    class RecordWeights(Callback):
        def on_train_epoch_end(self, trainer, module):
            parts = (module.model.detector, module.model.head)
            weights.append(
                [
                    torch.cat([weight.detach().flatten() for weight in part.parameters()])
                    for part in parts
                ]
            )

    train(recipe, tmp_path, progress=False, callbacks=[RecordWeights()])
    (detector, head), (later_detector, later_head) = weights
    assert torch.equal(detector, later_detector)
    assert not torch.equal(head, later_head)


def test_the_learning_rate_has_a_second_cycle_in_the_settling_phase():
    model = make_model()
    changes = {"honesty": {"settle": 0.25, "swap": 0.1}, "training": {"lr": 0.01}}
    module = Classification(
        model, parse_recipe({"name": "toy", "model": {"name": "focus"}, **changes}), 100
    )
    configured = module.configure_optimizers()
    optimizer, rates = configured["optimizer"], []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        configured["lr_scheduler"]["scheduler"].step()
    assert max(rates[:75]) == pytest.approx(0.01, rel=0.02)
    assert rates[74] < 1e-5
    assert max(rates[75:]) == pytest.approx(0.01, rel=0.02)
    assert rates[-1] < 2e-4


def test_the_swap_loss_remains_in_the_settling_phase():
    honesty = {"adversary": 1.0, "swap": 1.0, "settle": 0.25}
    (loss_before, _), (loss_after, _) = (
        _honesty_loss(honesty, progress) for progress in (0.74, 0.75)
    )
    assert 0 < loss_after < loss_before


def test_the_still_option_measures_locations_before_augmentation():
    labels = shortcut_set(200, 0, "train").labels
    moves = torch.eye(2, 3).repeat(200, 1, 1)
    moves[:, 0, 2] = labels.float()  # as if each class had been shifted differently
    (loss, _), (loss_with_still, _) = (
        _honesty_loss({"dependence": 1.0, "still": still}, 0.0, moves) for still in (False, True)
    )
    assert loss_with_still > loss + 0.2


def test_honest_training_refuses_mixed_images():
    recipe = load_recipe("mnist-5k-focus", ["honesty.swap=1", "augment.mix=0.5"])
    with pytest.raises(UserError, match="mixed images"):
        Classification(build_model({**recipe.model, "num_classes": 10}), recipe, 10)


def test_honest_training_requires_a_focus_model():
    recipe = load_recipe("mnist-cnn", ["honesty.swap=1"])
    with pytest.raises(UserError, match="focus models"):
        Classification(build_model({**recipe.model, "num_classes": 10}), recipe, 10)
