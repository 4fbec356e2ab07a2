"""Training with the default recipe on three small folders of real images, as a new user has them.

The images are included in packages: textures and photos of scikit-image and scikit-learn, and the
digits of scikit-learn. Training and test tiles are cut from different parts of a picture and share
no pixel. Run: python benchmarks/experiments/first_hour.py [OUT.json] [FAMILY]
"""

import json
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from foveal import zoo
from foveal.workflows.first_hour import plan, train_photos

SIDE = 64  # side of a tile in pixels
PICTURES = {
    "textures": [("skimage.data", f"{name}.png") for name in ("brick", "grass", "gravel")],
    "photos": [
        ("skimage.data", "coffee.png"),
        ("skimage.data", "chelsea.png"),
        ("sklearn.datasets.images", "china.jpg"),
        ("sklearn.datasets.images", "flower.jpg"),
    ],
}


def write_tiles(folder: Path, pictures: list[tuple[str, str]]) -> None:
    """Write tiles of pictures, each a class, as training, validation and test images."""
    for package, name in pictures:
        with resources.files(package).joinpath(name).open("rb") as file:
            picture = Image.open(file)
            picture.load()
        # The lowest rows of tiles are for testing, and as many rows above them for validation. Only
        # training tiles overlap, by half of their side.
        rows = picture.height // SIDE
        held_out_rows = max(1, rows // 5)  # for validation, and for testing
        regions = {  # top, bottom and step in pixels
            "train": (0, (rows - 2 * held_out_rows) * SIDE, SIDE // 2),
            "val": ((rows - 2 * held_out_rows) * SIDE, (rows - held_out_rows) * SIDE, SIDE),
            "test": ((rows - held_out_rows) * SIDE, rows * SIDE, SIDE),
        }
        for split, (top, bottom, step) in regions.items():
            target = folder / split / Path(name).stem
            target.mkdir(parents=True)
            for y in range(top, bottom - SIDE + 1, step):
                for x in range(0, picture.width - SIDE + 1, step):
                    tile = picture.crop((x, y, x + SIDE, y + SIDE))
                    tile.save(target / f"{y}-{x}.png")


def write_digits(folder: Path) -> None:
    """Write the digits of scikit-learn into a folder per class."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        target = folder / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(target / f"{index}.png")


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results/first_hour.json")
    family = sys.argv[2] if len(sys.argv) > 2 else "focus"
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("digits", *PICTURES):
            folder = Path(scratch) / name
            if name == "digits":
                write_digits(folder)
            else:
                write_tiles(folder, PICTURES[name])
            started = time.perf_counter()
            recipe = plan(str(folder), family, [], print)
            run = train_photos(recipe, Path(scratch) / f"run-{name}", str(folder), print)
            card = zoo.card(run)
            results[name] = {
                "family": family,
                "train_images": card["train_images"],
                "figures": card["figures"],
                "seconds": round(time.perf_counter() - started, 1),
            }
            out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
