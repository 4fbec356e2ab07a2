"""Parameters, multiply-adds and latency, against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveal.detectors import HeatmapDetector, RandomKeypoints
from foveal.explanation import Explanation
from foveal.images.geometry import extract_patches
from foveal.metrics import latency_ms, macs, parameters
from foveal.models import Inputs, SmallCNN, presets
from foveal.models.image_model import ImageModel

WIDTH = 128  # dimension of a token, which represents a patch
HEAD_MACS = 128 * 10  # of the last linear layer, for ten classes


def encoder_macs(keypoints, patch_size, channels):
    """Return the multiply-adds of the patch encoder and the position encoding."""
    patch_macs = channels * patch_size**2 * WIDTH + WIDTH * WIDTH
    position_macs = 2 * 64 + 64 * WIDTH
    return keypoints * (patch_macs + position_macs)


def test_macs_of_a_focus_model_are_the_sum_over_convolutions_and_linear_layers():
    detector_macs = 14**2 * 9 * (1 * 12 + 12 * 24) + 7**2 * 9 * (24 * 32 + 32 * 32) + 7**2 * 32 * 3
    expected = detector_macs + encoder_macs(3, 5, 1) + 3 * WIDTH * 128 + HEAD_MACS
    assert macs(presets.focus(HeatmapDetector(3), 5), (28, 28)) == expected


def test_macs_include_fused_attention():
    token_macs = 4 * WIDTH * WIDTH + 2 * WIDTH * 2 * WIDTH  # query, key, value, out; feed-forward
    attention_macs = 2 * 3 * 3 * WIDTH  # scores and their weighted sums
    expected = (
        encoder_macs(3, 5, 3) + 2 * (3 * token_macs + attention_macs) + WIDTH * 128 + HEAD_MACS
    )
    model = presets.focus(RandomKeypoints(3), 5, in_channels=3, mix="attention")
    assert macs(model, (20, 28)) == expected


class Sampler(ImageModel):
    """Samples bilinear patches or a resized image, followed by one linear layer."""

    name = "sampler"

    def __init__(self, kind):
        super().__init__(3, 10, Inputs())
        self.kind = kind
        self.linear = nn.Linear(3, 10)

    def observe(self, view):
        images = view.whole()
        if self.kind == "patches":
            sampled = extract_patches(images, images.new_zeros(len(images), 4, 2), 5)
        else:
            sampled = F.interpolate(images, (7, 9), mode="bilinear", align_corners=False)
        return Explanation(images, self.linear(sampled.flatten(1)[:, :3]))


@pytest.mark.parametrize(("kind", "samples"), [("patches", 4 * 3 * 5 * 5), ("resize", 3 * 7 * 9)])
def test_bilinear_sample_costs_four_multiply_adds(kind, samples):
    assert macs(Sampler(kind), (20, 28)) == 4 * samples + 3 * 10


def test_macs_of_convolutions_grow_with_the_image_and_ignore_the_training_mode():
    model = SmallCNN().train()
    small, large = macs(model, (16, 16)), macs(model, (32, 32))
    head = 96 * 10
    assert large - head == 4 * (small - head)
    assert macs(model.eval(), (16, 16)) == small


def test_parameters_exclude_buffers():
    model = Sampler("patches")
    assert parameters(model) == 3 * 10 + 10
    assert parameters(SmallCNN(widths=(4,))) == 9 * 4 + 2 * 4 + 4 * 10 + 10  # without running means


def test_latency_is_measured_on_one_image_and_one_thread():
    class RecordingSampler(Sampler):
        def observe(self, view):
            calls.append((len(view.whole()), torch.get_num_threads(), self.training))
            return super().observe(view)

    calls = []  # number of images, number of threads, and whether the model is in training mode
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert latency_ms(RecordingSampler("patches").train(), (20, 28), repeats=9) > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(calls) == {(1, 1, False)}
    assert len(calls) >= 9


def test_thread_count_is_restored_when_the_model_fails():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="at least 9x9"):
            latency_ms(presets.focus(RandomKeypoints(3), 9), (8, 8))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
