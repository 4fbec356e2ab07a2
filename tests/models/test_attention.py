"""Attention against loops over places, and what its maps promise."""

import warnings

import pytest
import torch

from foveal.backbones import VGGBackbone
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images import WholeView
from foveal.models.attention import Attention, AttentionNet, weigh
from foveal.models.contributions import spread

CASES = [(c, n) for c in ("pc", "dp") for n in ("softmax", "sigmoid")]


def built(**settings):
    torch.manual_seed(0)
    return AttentionNet(VGGBackbone(3, [[6], [8], [8]]), **settings).eval()


@pytest.mark.parametrize(("compatibility", "normalise"), CASES)
@pytest.mark.parametrize("global_width", [4, 7])
def test_attention_equals_a_loop_over_places(compatibility, normalise, global_width):
    torch.manual_seed(0)
    attention = Attention(4, global_width, compatibility, normalise)
    local, whole = torch.randn(2, 4, 3, 5), torch.randn(2, global_width)
    sought = attention.sought(whole) if global_width != 4 or compatibility == "dp" else whole
    expected = torch.zeros(2, 3, 5)
    for image in range(2):
        for y in range(3):
            for x in range(5):
                place = local[image, :, y, x]
                if compatibility == "dp":
                    score = sum(place[c] * sought[image, c] for c in range(4)) / 2
                elif normalise == "softmax":
                    score = sum(place[c] * attention.score.weight[0, c] for c in range(4))
                else:
                    both = place + sought[image]
                    score = sum(both[c] * attention.score.weight[0, c] for c in range(4))
                expected[image, y, x] = score
        if normalise == "softmax":
            expected[image] = expected[image].exp() / expected[image].exp().sum()
        else:
            expected[image] = 1 / (1 + (-expected[image]).exp())
    found = attention(local, whole)
    torch.testing.assert_close(found, expected)
    total = sum(local[:, :, y, x] * expected[:, y, x, None] for y in range(3) for x in range(5))
    total = total if normalise == "softmax" else total / 15
    torch.testing.assert_close(weigh(local, found, normalise), total)


def test_a_softmax_of_parametrised_scores_is_the_same_without_the_global_vector():
    torch.manual_seed(0)
    attention = Attention(4, 4, "pc", "softmax")
    local, whole = torch.randn(1, 4, 2, 3), torch.randn(1, 4)
    both = local + whole[:, :, None, None]
    expected = (attention.score.weight @ both.flatten(2)).softmax(-1).view(1, 2, 3)
    torch.testing.assert_close(attention(local, whole), expected)


def test_softmax_maps_sum_to_one_and_are_shown_as_they_weigh():
    model = built()
    images = torch.rand(2, 3, 32, 24)
    _, maps = model.attend(model.view(images))
    for weights in maps:
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2))
    shown = model.explain(images).maps
    assert shown.shape == (2, 3, 32, 24)
    assert torch.equal(shown[:, 0], maps[0].detach())
    assert torch.equal(shown[:, 1, ::2, ::2], maps[1].detach())
    assert torch.equal(shown[:, 2, 3::4, 3::4], maps[2].detach())


def test_independent_classifiers_answer_with_the_mean_of_their_probabilities():
    model = built(join="independent", depths=[1, 3])
    local, maps = model.attend(WholeView(torch.rand(4, 3, 16, 16)))
    each = [
        head(weigh(seen, weights, "softmax")).softmax(-1)
        for head, seen, weights in zip(model.heads, local, maps, strict=True)
    ]
    found = model.combine(local, maps)
    torch.testing.assert_close(found.softmax(-1), (each[0] + each[1]) / 2)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(4))


def test_one_depth_answers_the_same_joined_or_independent():
    joined, alone = built(depths=[2]), built(depths=[2], join="independent")
    alone.load_state_dict(joined.state_dict())
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(joined(images).log_softmax(-1), alone(images).log_softmax(-1))


@pytest.mark.parametrize("normalise", ["softmax", "sigmoid"])
def test_contributions_are_the_terms_of_the_logit(normalise):
    model = built(normalise=normalise, standardise=True)
    for norm in model.norms:  # as after training
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    images, targets = torch.rand(5, 3, 20, 16), torch.tensor([0, 1, 2, 3, 1])
    found = model.contributions(images, targets, batch_size=2)
    assert (found.method, found.cost, found.maps.shape) == ("contributions", 1.0, (5, 1, 20, 16))
    torch.testing.assert_close(found.logits, model.explain(images).logits)
    local, maps = model.attend(model.view(images))
    nothing = model.combine(local, [torch.zeros_like(weights) for weights in maps])
    added = (found.logits - nothing).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.maps.sum((1, 2, 3)), added, atol=1e-4, rtol=1e-4)
    # One place of one depth: hiding it takes its own term away.
    weights = [weights.clone() for weights in maps]
    weights[1][:, 2, 3] = 0
    less = (found.logits - model.combine(local, weights)).gather(1, targets[:, None])[:, 0]
    alone = [torch.zeros_like(weights) for weights in maps]
    alone[1][:, 2, 3] = maps[1][:, 2, 3]
    term = (model.combine(local, alone) - nothing).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(less, term, atol=1e-4, rtol=1e-3)
    asked = model.contributions(images)
    again = model.contributions(images, asked.predictions)
    assert torch.equal(asked.maps, again.maps)
    assert asked[0].figure().axes
    with pytest.raises(ValueError, match=r"Expected targets \(5,\)"):
        model.contributions(images, targets[:2])


def test_contributions_leave_the_model_as_it_was():
    model = built(join="independent").train()
    model.backbone.eval()
    with torch.no_grad():
        model.contributions(torch.rand(2, 3, 16, 16))
    assert model.training
    assert not model.backbone.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_values_of_places_are_spread_with_their_sum_kept():
    values = torch.rand(2, 1, 3, 5)
    found = spread(values, (7, 5))
    assert found.shape == (2, 1, 7, 5)
    torch.testing.assert_close(found.sum((2, 3)), values.sum((2, 3)))
    torch.testing.assert_close(spread(values, (6, 10))[:, :, ::2, ::2], values / 4)


def test_the_decision_is_made_from_the_weighed_places_alone():
    model = built()
    local, maps = model.attend(WholeView(torch.rand(1, 3, 16, 16)))
    maps = [torch.zeros_like(weights) for weights in maps]
    for weights in maps:
        weights[:, 0, 0] = 1
    expected = model.combine(local, maps)
    hidden = [torch.randn_like(features) for features in local]
    for new, old in zip(hidden, local, strict=True):
        new[:, :, 0, 0] = old[:, :, 0, 0]
    torch.testing.assert_close(model.combine(hidden, maps), expected)


def test_standardised_sums_have_mean_0_and_variance_1_over_the_images_of_a_batch():
    model = built(standardise=True, depths=[1, 3]).train()
    reached = []
    model.heads[0].register_forward_pre_hook(lambda _, inputs: reached.append(inputs[0].detach()))
    images = torch.rand(16, 3, 16, 16)
    model(images)
    torch.testing.assert_close(reached[0].mean(0), torch.zeros(6 + 8), atol=1e-5, rtol=0)
    varied = reached[0].var(0, correction=0)
    assert 0.9 < varied.median() <= 1.0  # each sum varies little here: the norm adds 1e-5
    assert not any(name.startswith("norms") for name, _ in model.named_parameters())
    with torch.no_grad():
        for _ in range(200):
            model(images)
    found = reached[-1]
    model.eval()(images)
    torch.testing.assert_close(reached[-1], found, atol=0.15, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": [0]}, r"Expected different depths from 1 to 3.*but got \[0\]"),
        ({"depths": [4]}, "from 1 to 3"),
        ({"depths": [1, 1]}, "different depths"),
        ({"depths": []}, "different depths"),
        ({"compatibility": "dot"}, "Unknown compatibility 'dot'"),
        ({"normalise": "softmx"}, "Did you mean 'softmax'"),
        ({"join": "cat"}, "Unknown join 'cat'"),
    ],
)
def test_wrong_settings_are_user_errors(settings, message):
    with pytest.raises(UserError, match=message):
        built(**settings)


def test_the_json_names_the_place_that_each_depth_attends_to_most():
    model = built()
    explanation = model.explain(torch.rand(1, 3, 32, 24))
    found = explanation.to_dicts()[0]["attention"]
    assert len(found) == 3
    for peak, heat in zip(found, explanation.maps[0], strict=True):
        assert heat[round(peak["y_px"]), round(peak["x_px"])] == heat.max()
        assert peak["times_even_share"] == pytest.approx(float(heat.max() / heat.mean()))
        assert peak["x"] == pytest.approx((2 * peak["x_px"] + 1) / 24 - 1)
        assert peak["y"] == pytest.approx((2 * peak["y_px"] + 1) / 32 - 1)


def test_of_two_equal_peaks_the_first_is_named_and_no_place_between():
    heat = torch.zeros(1, 1, 8, 12)
    heat[0, 0, 2:4, 4:6] = 1
    heat[0, 0, 6:8, 10:12] = 1
    explanation = Explanation(torch.rand(1, 3, 8, 12), torch.zeros(1, 2), maps=heat)
    (peak,) = explanation.to_dicts()[0]["attention"]
    assert (peak["x_px"], peak["y_px"]) == (4.5, 2.5)


def test_layers_that_have_no_part_in_the_answer_are_warned_of():
    with pytest.warns(UserWarning, match="deeper than depth 2 do not affect the logits"):
        model = built(depths=[1, 2], compatibility="pc")
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is None for p in model.backbone.blocks[2].parameters())


@pytest.mark.parametrize("settings", [{"depths": [1, 3], "compatibility": "pc"}, {"depths": [1]}])
def test_where_all_layers_have_a_part_there_is_no_warning(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = built(**settings)
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(p.grad.any() for p in model.backbone.blocks[2].parameters() if p.requires_grad)
