"""Accuracy of `imagenet` by preprocessing: size, aspect ratio, stride, mirrored second pass.

Every option is measured on the 1,000 validation photographs of `imagenet-val-1000`, separately for
those with an odd and an even number in the file name. The option is chosen by the odd ones, and its
accuracy is reported for the even ones.

    python benchmarks/experiments/imagenet_options.py
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from foveal import zoo
from foveal.backbones import EfficientNetLite
from foveal.datasets import load_images
from foveal.datasets.images import ImageSet
from foveal.foundation.files import write_json
from foveal.foundation.memory import keep_freed_memory
from foveal.images.sizing import ShortSide
from foveal.metrics.classes import with_model_classes
from foveal.models import PlainNet

DATA = "imagenet-val-1000"


@dataclass(frozen=True)
class Option:
    """A way to preprocess and classify a photograph.

    Attributes:
        name: name in the table.
        sizing: size that photographs are resized to.
        centre: side in pixels of the centre crop; 0 for the full image.
        stride: stride of the deepest features.
        flip: whether to average the probabilities with those of the mirrored photograph.
    """

    name: str
    sizing: ShortSide | tuple[int, int]
    centre: int = 0
    stride: int = 32
    flip: bool = False


OPTIONS = (
    Option("224 on the short side (shipped)", ShortSide(224)),
    Option("the same, mirrored too", ShortSide(224), flip=True),
    Option("the same, stride 16", ShortSide(224), stride=16),
    Option("the central 224 of 256", ShortSide(256), centre=224),
    Option("256 on the short side", ShortSide(256)),
    Option("192 on the short side", ShortSide(192)),
    Option("160 on the short side", ShortSide(160)),
    Option("squashed to 224x224", (224, 224)),
)


def with_stride(model: PlainNet, stride: int) -> PlainNet:
    """Return the model with the given stride of its deepest features and unchanged weights."""
    if stride == 32:
        return model
    strided = PlainNet(EfficientNetLite(stride=stride), model.num_classes, inputs=model.inputs)
    strided.load_state_dict(model.state_dict())
    return strided.eval()


def is_correct(model: PlainNet, images: ImageSet, option: Option) -> Tensor:
    """Return which photographs (N,) are classified correctly."""
    predictions = []
    with torch.inference_mode():
        for batch in images.images.split(16):
            if option.centre:
                top, left = ((side - option.centre) // 2 for side in batch.shape[-2:])
                batch = batch[..., top : top + option.centre, left : left + option.centre]
            pixels = (batch.float() / 255).contiguous(memory_format=torch.channels_last)
            probabilities = model(pixels).softmax(dim=1)
            if option.flip:
                probabilities = probabilities + model(pixels.flip(-1)).softmax(dim=1)
            predictions.append(probabilities.argmax(dim=1))
    return torch.cat(predictions) == images.labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    model = zoo.load("imagenet").to(memory_format=torch.channels_last)
    rows = []
    for option in OPTIONS:
        images = load_images(DATA, "test", size=option.sizing, channels=3)
        images, _ = with_model_classes(images, model)
        numbers = [int(Path(path).stem[-8:]) for path in images.paths]
        odd = torch.tensor([number % 2 == 1 for number in numbers])
        correct = is_correct(with_stride(model, option.stride), images, option).double()
        row = {
            "way": option.name,
            "odd": round(float(correct[odd].mean()), 4),
            "even": round(float(correct[~odd].mean()), 4),
            "all": round(float(correct.mean()), 4),
        }
        print(row, flush=True)
        rows.append(row)
    if arguments.out:
        write_json(arguments.out, {"data": DATA, "ways": rows})


if __name__ == "__main__":
    main()
