"""Honest training: the class is kept out of where a focus model looks."""

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
from foveal.training.objectives.honesty.adversarial import reversed_gradient
from foveal.training.objectives.honesty.dependence import dependence
from foveal.training.objectives.honesty.terms import HonestyTerms, Step

SIDE = 16


def test_the_reversed_gradient_leaves_the_values_and_turns_the_slope_round():
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    passed = reversed_gradient(values, 0.5)
    assert passed.equal(values)
    (passed * torch.tensor([3.0, 4.0])).sum().backward()
    assert values.grad.tolist() == [-1.5, -2.0]


def test_dependence_is_high_where_places_tell_the_class_and_low_where_not():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=generator)
    free = torch.rand(400, 6, generator=generator) * 2 - 1
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    told = torch.cat([corners[labels] * 0.7, free[:, :4] * 0.05], dim=1)
    assert dependence(told, labels) > 0.9
    assert dependence(free, labels) < 0.15
    order = torch.randperm(400, generator=generator)
    assert torch.allclose(dependence(told[order], labels[order]), dependence(told, labels))


def test_dependence_equals_its_formula():
    places, labels = torch.rand(7, 4).double(), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    kernel = torch.zeros(7, 7).double()
    same = torch.zeros(7, 7).double()
    for i in range(7):
        for j in range(7):
            apart = float((places[i] - places[j]).square().sum())
            kernel[i, j] = sum(torch.exp(torch.tensor(-apart / (2 * w * w))) for w in (0.1, 0.3, 1))
            same[i, j] = labels[i] == labels[j]
    middle = torch.eye(7).double() - 1 / 7
    first, second = middle @ kernel @ middle, middle @ same @ middle
    expected = (first * second).sum() / (first.norm() * second.norm())
    assert torch.allclose(dependence(places, labels), expected, atol=1e-6)


def tempting(count, seed, split):
    """Return images whose class can be spelled by the place: a bright dot among dim marks.

    The pixels of the class are a pattern in the middle; a row of dots at the top is free to be
    pointed at.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.randint(0, 20, (count, 1, SIDE, SIDE), generator=generator)
    patterns = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    pixels = patterns[labels].reshape(count, 2, 2) * 200
    images[:, 0, 7:9, 7:9] = pixels
    return ImageSet("tempting", split, images.to(torch.uint8), labels, tuple("abcd"))


def new_model():
    """Return a focus model of one keypoint, always the same."""
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


def trained(honesty, steps=400):
    recipe = parse_recipe({"name": "toy", "model": {"name": "focus"}, "honesty": honesty})
    model = new_model()
    module = Classification(model, recipe, steps)
    optimizer = module.configure_optimizers()["optimizer"]
    train = tempting(2000, 0, "train")
    model.train()
    module.log = lambda *arguments, **settings: None
    for step in range(steps):
        part = torch.arange(step * 100, step * 100 + 100) % len(train)
        optimizer.zero_grad()
        module.training_step((train.images[part], train.labels[part]), step).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3
        optimizer.step()
    return model.eval(), train


@pytest.fixture(scope="module")
def plain():
    """What a model trained without honesty terms scores: leakage, content following."""
    return scores(*trained({}))


def scores(model, train):
    test = tempting(600, 1, "test")
    leakage = position_leakage(model, train, test)
    return leakage, content_following(model, test, 500).content_following


@pytest.mark.parametrize(
    "honesty",
    [
        {"adversary": 1.0, "swap": 1.0},
        {"dependence": 2.0, "swap": 1.0},
        {"adversary": 1.0, "swap": 1.0, "still": True},
        {"adversary": 1.0, "swap": 1.0, "probes": 3},
    ],
)
def test_honest_training_makes_places_tell_less_and_pixels_more(honesty, plain):
    leakage, content = scores(*trained(honesty))
    assert leakage < plain[0] - 0.1
    assert content > plain[1]


def test_the_probes_are_trained_along_and_not_kept():
    recipe = load_recipe("mnist-5k-focus", ["honesty.adversary=0.5", "honesty.probes=2"])
    model = build_model({**recipe.model, "num_classes": 10})
    module = Classification(model, recipe, 10)
    held = {
        id(p)
        for group in module.configure_optimizers()["optimizer"].param_groups
        for p in group["params"]
    }
    assert held == {id(p) for p in module.parameters()}
    assert not any("probe" in name for name in model.state_dict())


def _loss_of_places(honesty, done, moves=None, alike=False):
    """Return the honest loss of places that tell all, `done` into training, and its gradient."""
    train = tempting(200, 0, "train")
    model = new_model()
    honest = HonestyTerms(
        model, 1, parse_recipe({"name": "toy", "model": {"name": "focus"}, "honesty": honesty})
    )
    for probe in honest.adversarial.probes[1:] if alike else ():
        probe.load_state_dict(honest.adversarial.probes[0].state_dict())
    images = train.images.float() / 255
    view = WholeView(images)
    loss = honest(model, Step(view, model.observe(view), train.labels, moves, done))
    loss.backward()
    steps = [p.grad for p in model.detector.parameters() if p.grad is not None]
    return float(loss.detach()), sum(float(step.abs().sum()) for step in steps)


def test_more_probes_that_agree_pull_as_much_as_one():
    one, pull = _loss_of_places({"adversary": 1.0}, 1.0, alike=True)
    three, pulled = _loss_of_places({"adversary": 1.0, "probes": 3}, 1.0, alike=True)
    assert three == pytest.approx(3 * one, rel=1e-4)
    assert pulled == pytest.approx(pull, rel=1e-3)


def test_the_terms_grow_over_the_ramp():
    honesty = {"dependence": 1.0, "adversary": 1.0}
    whole = _loss_of_places(honesty, 0.0)
    honesty["ramp"] = 0.5
    start, half, end = (_loss_of_places(honesty, done) for done in (0.0, 0.25, 0.5))
    assert start[1] == 0
    assert half[1] == pytest.approx(end[1] / 2, rel=1e-3)
    assert end == pytest.approx(whole)


def test_settled_places_learn_no_more_while_what_decides_from_them_does():
    digits = tempting(200, 0, "train")
    images = digits.images.float() / 255
    honesty = {"adversary": 1.0, "dependence": 1.0, "settle": 0.25}
    recipe = parse_recipe({"name": "toy", "model": {"name": "focus"}, "honesty": honesty})
    for done, settled in ((0.74, False), (0.75, True)):
        model = new_model()
        honest = HonestyTerms(model, 1, recipe)
        view = WholeView(images)
        observed = honest.observe(model, view, done)
        told = honest(model, Step(view, observed, digits.labels, None, done))
        (F.cross_entropy(observed.logits, digits.labels) + told).backward()
        learns = [
            any(p.grad is not None for p in part.parameters())
            for part in (model.detector, honest.adversarial.probes, model.head)
        ]
        assert learns == [not settled, not settled, True]
        used = model.eval().observe(WholeView(images))
        assert torch.allclose(observed.keypoints, used.keypoints) == settled


def test_a_training_that_settles_keeps_its_places_from_then_on(tmp_path):
    changes = ["epochs=2", "data.limit=400", "average=0", "keep=last", "honesty.adversary=0.1"]
    recipe = load_recipe("mnist-5k-focus", [*changes, "honesty.settle=0.5"])
    seen = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, module):
            parts = (module.model.detector, module.model.head)
            seen.append([torch.cat([w.detach().flatten() for w in p.parameters()]) for p in parts])

    train(recipe, tmp_path, progress=False, callbacks=[Watch()])
    (detector, classifier), (later, decides) = seen
    assert torch.equal(detector, later)
    assert not torch.equal(classifier, decides)


def test_the_learning_rate_falls_before_the_places_settle_and_rises_once_more():
    model = new_model()
    changes = {"honesty": {"settle": 0.25, "swap": 0.1}, "training": {"lr": 0.01}}
    module = Classification(
        model, parse_recipe({"name": "toy", "model": {"name": "focus"}, **changes}), 100
    )
    made = module.configure_optimizers()
    optimizer, rates = made["optimizer"], []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["lr_scheduler"]["scheduler"].step()
    assert max(rates[:75]) == pytest.approx(0.01, rel=0.02)
    assert rates[74] < 1e-5
    assert max(rates[75:]) == pytest.approx(0.01, rel=0.02)
    assert rates[-1] < 2e-4


def test_settled_places_still_take_the_pixels_of_other_images():
    honesty = {"adversary": 1.0, "swap": 1.0, "settle": 0.25}
    before, after = (_loss_of_places(honesty, done)[0] for done in (0.74, 0.75))
    assert 0 < after < before


def test_still_places_are_judged_where_they_lie_in_the_image_before_it_was_moved():
    labels = tempting(200, 0, "train").labels
    moves = torch.eye(2, 3).repeat(200, 1, 1)
    moves[:, 0, 2] = labels.float()  # as if each class had been moved by a way of its own
    plain, told = (
        _loss_of_places({"dependence": 1.0, "still": still}, 0.0, moves)[0]
        for still in (False, True)
    )
    assert told > plain + 0.2


def test_honest_training_does_not_take_mixed_images():
    recipe = load_recipe("mnist-5k-focus", ["honesty.swap=1", "augment.mix=0.5"])
    with pytest.raises(UserError, match="mixed images"):
        Classification(build_model({**recipe.model, "num_classes": 10}), recipe, 10)


def test_honest_training_is_for_focus_models():
    recipe = load_recipe("mnist-cnn", ["honesty.swap=1"])
    with pytest.raises(UserError, match="focus models"):
        Classification(build_model({**recipe.model, "num_classes": 10}), recipe, 10)
