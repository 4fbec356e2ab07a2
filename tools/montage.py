"""Montage of fixed images under every zoo model, for visual review before a release.

FOVEAL_DATA=... python tools/montage.py [--out report/montage.png]
"""

import argparse
from pathlib import Path

import torch

from foveal import zoo
from foveal.datasets import load_images
from foveal.plotting import draw_image, new_figure

COLUMNS = 10
SOURCES = {"mnist": "mnist-5k", "fashion": "fashion-mnist", "cifar10": "cifar10"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("report/montage.png"))
    out = parser.parse_args().out
    names = zoo.names()
    figure = new_figure(1.2 * COLUMNS, 1.35 * len(names))
    rows = figure.subplots(len(names), COLUMNS, squeeze=False)
    for row, name in zip(rows, names, strict=True):
        images = load_images(SOURCES[name.split("-")[0]], "test")
        indices = torch.stack(
            [(images.labels == label).nonzero()[0, 0] for label in range(COLUMNS)]
        )
        explanation = zoo.load(name).explain(images.images[indices].float() / 255)
        for index, axes in enumerate(row):
            draw_image(axes, explanation[index], numbers=False)
            prediction = int(explanation.predictions[index])
            mark = "✓" if prediction == int(images.labels[indices[index]]) else "✗"
            axes.set_title(f"{mark} {explanation.class_name(prediction)}"[:14], fontsize=7)
        heading = row[0].text(0, 1.3, name, transform=row[0].transAxes, fontsize=8, weight="bold")
        heading.set_in_layout(False)  # or a long name would widen the first column
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    print(out)


if __name__ == "__main__":
    main()
