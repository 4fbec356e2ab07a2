"""Attention: equality with loops over locations, and properties of its maps."""

import warnings

import pytest
import torch

from foveal.backbones import VGGBackbone
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images import WholeView
from foveal.models.attention import Attention, AttentionNet, weigh
from foveal.models.contributions import spread_over_pixels

CASES = [
    (compatibility, normalise)
    for compatibility in ("pc", "dp")
    for normalise in ("softmax", "sigmoid")
]


def make_model(**settings):
    """Return an attention net on a backbone of three stages with 6, 8 and 8 channels."""
    torch.manual_seed(0)
    return AttentionNet(VGGBackbone(3, [[6], [8], [8]]), **settings).eval()


@pytest.mark.parametrize(("compatibility", "normalise"), CASES)
@pytest.mark.parametrize("global_width", [4, 7])
def test_attention_equals_a_loop_over_locations(compatibility, normalise, global_width):
    torch.manual_seed(0)
    attention = Attention(4, global_width, compatibility, normalise)
    local, global_vector = torch.randn(2, 4, 3, 5), torch.randn(2, global_width)
    query = (
        attention.sought(global_vector)
        if global_width != 4 or compatibility == "dp"
        else global_vector
    )
    expected = torch.zeros(2, 3, 5)
    for image in range(2):
        for y in range(3):
            for x in range(5):
                features = local[image, :, y, x]
                if compatibility == "dp":
                    # Divided by the square root of the number of features.
                    score = sum(features[c] * query[image, c] for c in range(4)) / 2
                elif normalise == "softmax":
                    score = sum(features[c] * attention.score.weight[0, c] for c in range(4))
                else:
                    total_features = features + query[image]
                    score = sum(total_features[c] * attention.score.weight[0, c] for c in range(4))
                expected[image, y, x] = score
        if normalise == "softmax":
            expected[image] = expected[image].exp() / expected[image].exp().sum()
        else:
            expected[image] = 1 / (1 + (-expected[image]).exp())
    weights = attention(local, global_vector)
    torch.testing.assert_close(weights, expected)
    total = sum(local[:, :, y, x] * expected[:, y, x, None] for y in range(3) for x in range(5))
    total = total if normalise == "softmax" else total / 15
    torch.testing.assert_close(weigh(local, weights, normalise), total)


def test_a_softmax_of_parametrised_scores_ignores_the_global_vector():
    torch.manual_seed(0)
    attention = Attention(4, 4, "pc", "softmax")
    local, global_vector = torch.randn(1, 4, 2, 3), torch.randn(1, 4)
    with_global = local + global_vector[:, :, None, None]
    expected = (attention.score.weight @ with_global.flatten(2)).softmax(-1).view(1, 2, 3)
    torch.testing.assert_close(attention(local, global_vector), expected)


def test_softmax_maps_sum_to_one_and_are_displayed_unchanged():
    model = make_model()
    images = torch.rand(2, 3, 32, 24)
    _, maps = model.attend(model.view(images))
    for weights in maps:
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2))
    displayed = model.explain(images).maps
    assert displayed.shape == (2, 3, 32, 24)
    assert torch.equal(displayed[:, 0], maps[0].detach())
    assert torch.equal(displayed[:, 1, ::2, ::2], maps[1].detach())
    assert torch.equal(displayed[:, 2, 3::4, 3::4], maps[2].detach())


def test_independent_classifiers_average_their_probabilities():
    model = make_model(join="independent", depths=[1, 3])
    local, maps = model.attend(WholeView(torch.rand(4, 3, 16, 16)))
    probabilities = [
        head(weigh(features, weights, "softmax")).softmax(-1)
        for head, features, weights in zip(model.heads, local, maps, strict=True)
    ]
    logits = model.combine(local, maps)
    torch.testing.assert_close(logits.softmax(-1), (probabilities[0] + probabilities[1]) / 2)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(4))


def test_joined_and_independent_classifiers_agree_for_a_single_depth():
    joined, independent = make_model(depths=[2]), make_model(depths=[2], join="independent")
    independent.load_state_dict(joined.state_dict())
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(joined(images).log_softmax(-1), independent(images).log_softmax(-1))


@pytest.mark.parametrize("normalise", ["softmax", "sigmoid"])
def test_contributions_are_the_terms_of_the_logits(normalise):
    model = make_model(normalise=normalise, standardise=True)
    for norm in model.norms:  # as after training
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    images, targets = torch.rand(5, 3, 20, 16), torch.tensor([0, 1, 2, 3, 1])
    explanation = model.contributions(images, targets, batch_size=2)
    assert (explanation.method, explanation.cost) == ("contributions", 1.0)
    assert explanation.maps.shape == (5, 1, 20, 16)
    torch.testing.assert_close(explanation.logits, model.explain(images).logits)
    local, maps = model.attend(model.view(images))
    baseline = model.combine(local, [torch.zeros_like(weights) for weights in maps])
    total = (explanation.logits - baseline).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(explanation.maps.sum((1, 2, 3)), total, atol=1e-4, rtol=1e-4)
    # If the weight of one location of one depth is set to zero, the logit loses exactly its term.
    without = [weights.clone() for weights in maps]
    without[1][:, 2, 3] = 0
    drop = (explanation.logits - model.combine(local, without)).gather(1, targets[:, None])[:, 0]
    only = [torch.zeros_like(weights) for weights in maps]
    only[1][:, 2, 3] = maps[1][:, 2, 3]
    term = (model.combine(local, only) - baseline).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(drop, term, atol=1e-4, rtol=1e-3)
    by_default = model.contributions(images)
    to_prediction = model.contributions(images, by_default.predictions)
    assert torch.equal(by_default.maps, to_prediction.maps)
    assert by_default[0].figure().axes
    with pytest.raises(ValueError, match=r"Expected targets \(5,\)"):
        model.contributions(images, targets[:2])


def test_contributions_leave_the_model_unchanged():
    model = make_model(join="independent").train()
    model.backbone.eval()
    with torch.no_grad():
        model.contributions(torch.rand(2, 3, 16, 16))
    assert model.training
    assert not model.backbone.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dividing_values_among_pixels_preserves_their_sum():
    values = torch.rand(2, 1, 3, 5)
    pixels = spread_over_pixels(values, (7, 5))
    assert pixels.shape == (2, 1, 7, 5)
    torch.testing.assert_close(pixels.sum((2, 3)), values.sum((2, 3)))
    torch.testing.assert_close(spread_over_pixels(values, (6, 10))[:, :, ::2, ::2], values / 4)


def test_locations_with_zero_weight_do_not_affect_the_logits():
    model = make_model()
    local, maps = model.attend(WholeView(torch.rand(1, 3, 16, 16)))
    maps = [torch.zeros_like(weights) for weights in maps]
    for weights in maps:
        weights[:, 0, 0] = 1
    expected = model.combine(local, maps)
    replaced = [torch.randn_like(features) for features in local]
    for new, old in zip(replaced, local, strict=True):
        new[:, :, 0, 0] = old[:, :, 0, 0]
    torch.testing.assert_close(model.combine(replaced, maps), expected)


def test_standardised_sums_have_mean_0_and_variance_1_over_a_batch():
    model = make_model(standardise=True, depths=[1, 3]).train()
    sums = []
    model.heads[0].register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0].detach()))
    images = torch.rand(16, 3, 16, 16)
    model(images)
    torch.testing.assert_close(sums[0].mean(0), torch.zeros(6 + 8), atol=1e-5, rtol=0)
    variance = sums[0].var(0, correction=0)
    # The variance is slightly below 1, because the norm adds 1e-5 to the variance it divides by.
    assert 0.9 < variance.median() <= 1.0
    assert not any(name.startswith("norms") for name, _ in model.named_parameters())
    with torch.no_grad():
        for _ in range(200):
            model(images)
    train_sums = sums[-1]
    model.eval()(images)
    torch.testing.assert_close(sums[-1], train_sums, atol=0.15, rtol=0)


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
def test_invalid_settings_are_user_errors(settings, message):
    with pytest.raises(UserError, match=message):
        make_model(**settings)


def test_the_json_holds_the_peak_of_the_map_of_each_depth():
    model = make_model()
    explanation = model.explain(torch.rand(1, 3, 32, 24))
    peaks = explanation.to_dicts()[0]["attention"]
    assert len(peaks) == 3
    for peak, heat in zip(peaks, explanation.maps[0], strict=True):
        assert heat[round(peak["y_px"]), round(peak["x_px"])] == heat.max()
        assert peak["times_even_share"] == pytest.approx(float(heat.max() / heat.mean()))
        assert peak["x"] == pytest.approx((2 * peak["x_px"] + 1) / 24 - 1)
        assert peak["y"] == pytest.approx((2 * peak["y_px"] + 1) / 32 - 1)


def test_only_the_first_of_two_equal_peaks_is_in_the_json():
    heat = torch.zeros(1, 1, 8, 12)
    heat[0, 0, 2:4, 4:6] = 1
    heat[0, 0, 6:8, 10:12] = 1
    explanation = Explanation(torch.rand(1, 3, 8, 12), torch.zeros(1, 2), maps=heat)
    (peak,) = explanation.to_dicts()[0]["attention"]
    assert (peak["x_px"], peak["y_px"]) == (4.5, 2.5)


def test_layers_that_do_not_affect_the_logits_give_a_warning():
    with pytest.warns(UserWarning, match="deeper than depth 2 do not affect the logits"):
        model = make_model(depths=[1, 2], compatibility="pc")
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is None for p in model.backbone.blocks[2].parameters())


@pytest.mark.parametrize("settings", [{"depths": [1, 3], "compatibility": "pc"}, {"depths": [1]}])
def test_no_warning_if_all_layers_are_used(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make_model(**settings)
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(p.grad.any() for p in model.backbone.blocks[2].parameters() if p.requires_grad)
