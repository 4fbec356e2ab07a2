#!/usr/bin/env bash
# Install the package without extras into a temporary environment, and run what must work there.
set -euo pipefail
python="${1:-python3}"
root="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" "$root"
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
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
Image.fromarray((255 * images[0, 0]).byte().numpy()).save("digit.png")
PYTHON
"$work/venv/bin/foveal" explain mnist-focus digit.png --out explained
"$work/venv/bin/foveal" models > models.txt
mkdir -p digits/train/{a,b} digits/val/{a,b}
for class in a b; do cp digit.png "digits/train/$class/1.png"; cp digit.png "digits/val/$class/1.png"; done
"$work/venv/bin/foveal" train mnist-cnn --data digits --quiet epochs=1 batch_size=2 --out run
echo "The bare package runs."
