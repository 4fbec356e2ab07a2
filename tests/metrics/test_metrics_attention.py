"""Attention ablation and judged attention, on a model with known predictions.

The ablation replaces the attention maps of a model by those of other images, or by uniform maps.
A judge is a classifier that predicts from the evidence only, here the hottest pixels.
"""

from dataclasses import replace

import pytest
import torch

from foveal.backbones import Backbone
from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError
from foveal.metrics import attention_ablation, evaluate
from foveal.metrics.random_focus import derangement
from foveal.models import AttentionNet, Inputs, PublishedAttention

SIDE = 7  # an odd number of pixels, so that no mean is a tie


class Pixels(Backbone):
    """A backbone whose local features are the pixels, with a constant global vector."""

    def __init__(self):
        super().__init__()
        self.in_channels, self.widths, self.width, self.strides = 2, [2], 1, [None]

    def forward(self, images):
        return [images], images.new_ones(len(images), 1)

    def settings(self):
        return {}


@pytest.fixture(scope="module")
def reader():
    """Return a model that attends to the mark in channel 1 and predicts the sign of channel 0."""
    model = AttentionNet(
        Pixels(), depths=[1], num_classes=2, inputs=Inputs(mean=(0.5, 0.5), std=(0.5, 0.5))
    )
    with torch.no_grad():
        model.attentions[0].sought.weight.copy_(torch.tensor([[0.0], [60.0]]))
        model.heads[0].weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        model.heads[0].bias.zero_()
    return model.eval()


@pytest.fixture(scope="module")
def marked_images():
    """Return images and the positions (N,) of their marked pixels in row-major order.

    Channel 0 is randomly black or white, and channel 1 marks a pixel, whose colour is the class.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(90, 2, SIDE, SIDE, dtype=torch.uint8)
    images[:, 0] = torch.randint(0, 2, (90, SIDE, SIDE), generator=generator) * 255
    positions = torch.randint(0, SIDE**2, (90,), generator=generator)
    images[:, 1].flatten(1)[torch.arange(90), positions] = 255
    labels = (images[:, 0].flatten(1)[torch.arange(90), positions] > 0).long()
    return ImageSet("marked", "test", images, labels, ("black", "white")), positions


@pytest.mark.parametrize("batch_size", [7, 500])
def test_ablation_accuracies_equal_loops_over_images(reader, marked_images, batch_size):
    test, positions = marked_images
    colours = test.images[:, 0].flatten(1) > 0
    others = derangement(len(test), seed=3)
    shuffled = sum(
        int(colours[i, positions[others[i]]]) == int(test.labels[i]) for i in range(len(test))
    )
    uniform = sum(
        int(colours[i].float().mean() > 0.5) == int(test.labels[i]) for i in range(len(test))
    )
    ablation = attention_ablation(reader, test, seed=3, batch_size=batch_size)
    assert ablation.shuffled_attention_accuracy == pytest.approx(shuffled / len(test))
    assert ablation.uniform_attention_accuracy == pytest.approx(uniform / len(test))


def test_model_that_depends_on_its_maps_loses_accuracy_without_them(reader, marked_images):
    test, _ = marked_images
    figures = evaluate(reader, test)
    assert figures["accuracy"] == 1.0
    assert figures["shuffled_attention_accuracy"] < 0.7
    assert figures["uniform_attention_accuracy"] < 0.8
    assert "position_leakage" not in figures
    assert "sufficiency_at_10%" not in figures


def test_judge_gets_the_hottest_pixels_at_each_fraction(reader, marked_images):
    test, _ = marked_images
    figures = evaluate(reader, test, judge=reader)
    sufficiencies = [figures[f"sufficiency_at_{percent}%"] for percent in (5, 10, 20, 50)]
    # The mark is the hottest pixel and the only one that this judge reads.
    assert sufficiencies == [1.0] * 4
    assert figures["sufficiency_agreement_at_5%"] == 1.0
    assert figures["necessity_at_5%"] > 0.3


def test_ablation_requires_at_least_two_images(reader, marked_images):
    test, _ = marked_images
    single = replace(test, images=test.images[:1], labels=test.labels[:1])
    with pytest.raises(UserError, match="at least 2 images"):
        attention_ablation(reader, single)


def test_published_attention_model_supports_ablation():
    torch.manual_seed(0)
    model = PublishedAttention(num_classes=3).eval()
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    view = model.view(images)
    explanation = model.decide(view, model.attend(view))
    torch.testing.assert_close(explanation.logits, model(images.float() / 255))
    test = ImageSet("any", "test", images, torch.arange(8) % 3, ("a", "b", "c"))
    figures = evaluate(model, test)
    for kind in ("shuffled", "uniform"):
        assert 0 <= figures[f"{kind}_attention_accuracy"] <= 1
