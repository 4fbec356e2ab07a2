"""What attention maps are worth, on a model whose every answer is known."""

from dataclasses import replace

import pytest
import torch

from foveal.backbones import Backbone
from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError
from foveal.metrics import attention_ablation, evaluate
from foveal.metrics.random_focus import derangement
from foveal.models import AttentionNet, Inputs, PublishedAttention

SIDE = 7  # an odd number of places: no mean is a tie


class Pixels(Backbone):
    """The pixels themselves as local features, and nothing as the global vector."""

    def __init__(self):
        super().__init__()
        self.in_channels, self.widths, self.width, self.strides = 2, [2], 1, [None]

    def forward(self, images):
        return [images], images.new_ones(len(images), 1)

    def settings(self):
        return {}


@pytest.fixture(scope="module")
def reader():
    """A model that attends to the mark in channel 1 and answers with the sign of channel 0."""
    model = AttentionNet(
        Pixels(), depths=[1], num_classes=2, inputs=Inputs(mean=(0.5, 0.5), std=(0.5, 0.5))
    )
    with torch.no_grad():
        model.attentions[0].sought.weight.copy_(torch.tensor([[0.0], [60.0]]))
        model.heads[0].weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        model.heads[0].bias.zero_()
    return model.eval()


@pytest.fixture(scope="module")
def marked():
    """Images of black and white at random, one place marked; its colour is the class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(90, 2, SIDE, SIDE, dtype=torch.uint8)
    images[:, 0] = torch.randint(0, 2, (90, SIDE, SIDE), generator=generator) * 255
    places = torch.randint(0, SIDE**2, (90,), generator=generator)
    images[:, 1].flatten(1)[torch.arange(90), places] = 255
    labels = (images[:, 0].flatten(1)[torch.arange(90), places] > 0).long()
    return ImageSet("marked", "test", images, labels, ("black", "white")), places


@pytest.mark.parametrize("batch_size", [7, 500])
def test_the_accuracies_equal_loops_over_images(reader, marked, batch_size):
    test, places = marked
    colours = test.images[:, 0].flatten(1) > 0
    others = derangement(len(test), seed=3)
    shuffled = sum(
        int(colours[i, places[others[i]]]) == int(test.labels[i]) for i in range(len(test))
    )
    uniform = sum(
        int(colours[i].float().mean() > 0.5) == int(test.labels[i]) for i in range(len(test))
    )
    found = attention_ablation(reader, test, seed=3, batch_size=batch_size)
    assert found.shuffled_attention_accuracy == pytest.approx(shuffled / len(test))
    assert found.uniform_attention_accuracy == pytest.approx(uniform / len(test))


def test_a_model_that_needs_its_maps_is_lost_without_them(reader, marked):
    figures = evaluate(reader, marked[0])
    assert figures["accuracy"] == 1.0
    assert figures["shuffled_attention_accuracy"] < 0.7
    assert figures["uniform_attention_accuracy"] < 0.8
    assert "position_leakage" not in figures
    assert "sufficiency_at_10%" not in figures


def test_a_judge_sees_the_hottest_pixels_at_each_share(reader, marked):
    figures = evaluate(reader, marked[0], judge=reader)
    shares = [figures[f"sufficiency_at_{share}%"] for share in (5, 10, 20, 50)]
    assert shares == [1.0] * 4  # the mark is the hottest pixel, and all that this judge reads
    assert figures["sufficiency_agreement_at_5%"] == 1.0
    assert figures["necessity_at_5%"] > 0.3


def test_one_image_has_no_other_to_lend_its_maps(reader, marked):
    test = marked[0]
    one = replace(test, images=test.images[:1], labels=test.labels[:1])
    with pytest.raises(UserError, match="at least 2 images"):
        attention_ablation(reader, one)


def test_the_originals_net_hardly_needs_its_map():
    torch.manual_seed(0)
    model = PublishedAttention(num_classes=3).eval()
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    view = model.view(images)
    decided = model.decide(view, model.attend(view))
    torch.testing.assert_close(decided.logits, model(images.float() / 255))
    test = ImageSet("any", "test", images, torch.arange(8) % 3, ("a", "b", "c"))
    figures = evaluate(model, test)
    for kind in ("shuffled", "uniform"):
        assert 0 <= figures[f"{kind}_attention_accuracy"] <= 1
