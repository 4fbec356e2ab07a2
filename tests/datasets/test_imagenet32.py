"""Downsampled ImageNet: training and evaluation with recipes for small images."""

import numpy as np
import pytest

from foveal import zoo
from foveal.datasets import load_images
from foveal.evaluation.evaluate import evaluate_on
from foveal.training import load_recipe, train

# Overrides of a recipe for a small model.
SMALL = [
    "data.name=imagenet32",
    "model.backbone.stages=[[8],[16],[16]]",
    "model.depths=[1,2]",
    "batch_size=16",
    "epochs=1",
]


@pytest.fixture
def files(tmp_path):
    """Write npz files in the published format, with a few images of 3 of the 1,000 classes."""
    rng = np.random.default_rng(0)
    (tmp_path / "imagenet32").mkdir()
    for name, count in (("train_data_batch_1", 30), ("train_data_batch_2", 30), ("val_data", 12)):
        labels = np.arange(count) % 3 * 400 + 1  # from 1 to 1000, as published
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        np.savez(tmp_path / "imagenet32" / f"{name}.npz", data=data, labels=labels.tolist())
    return tmp_path


def test_dataset_of_a_thousand_classes_trains_and_evaluates(files, tmp_path):
    recipe = load_recipe("cifar10-attention", SMALL)
    run = train(recipe, tmp_path / "run", data_dir=files, progress=False)
    card = zoo.card(run)
    assert (card["train_images"], card["val_images"]) == (54, 6)
    figures = evaluate_on(str(run), "imagenet32", data_dir=files)
    assert figures["images"] == 12
    assert zoo.load(run).num_classes == 1000
    assert "shuffled_attention_accuracy" in figures
    test = load_images("imagenet32", "test", data_dir=files)
    assert set(test.labels.tolist()) == {0, 400, 800}
