#!/usr/bin/env bash
# Install the package without extras into a temporary environment, and check that its core works.
set -euo pipefail
python="${1:-python3}"
root="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" "$root"
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import torch
from PIL import Image

import foveal

model = foveal.load("mnist-focus")
images = torch.rand(3, 1, 28, 28)
explanation = model.explain(images)
assert torch.equal(model(images), explanation.logits)
explanation.save("pictures")
labels = torch.arange(3)
data = foveal.datasets.ImageSet("random", "test", (255 * images).byte(), labels, tuple("0123456789"))
print(foveal.evaluate(model, data)["accuracy"])
for split in ("train", "val"):
    for name in "ab":
        folder = Path("digits", split, name)
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = (255 * torch.rand(28, 28)).byte().numpy()
            Image.fromarray(pixels).save(folder / f"{number}.png")
PYTHON
"$work/venv/bin/foveal" explain mnist-focus digits/val/a/0.png --out explained
"$work/venv/bin/foveal" models > models.txt
"$work/venv/bin/foveal" train mnist-cnn --data digits --quiet epochs=1 batch_size=2 --out run
echo "The bare package runs."
