"""Localisation of defects by explanations of a focus model and of a model of the whole image.

The heat of every method is summed over the same candidate crops, those of the focus model. A method
hits if the crop with the highest sum covers at least half of a defect. The focus model is explained
by the contributions of its crops to the logit of the prediction (`focus`), by these relative to
the mean over all classes (`focus-relative`), and by the head's weights of the crops
(`focus-weights`). The other methods explain the other model. `centre`, `uniform` (a random
candidate) and `possible` (the best candidate) need no model. Both models were trained by
`photos.py`, which stores them below its --work. Requires scipy.

    FOVEAL_DATA=... python benchmarks/experiments/photo_explanations.py deeppcb focus-8 whole-320
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import foveal
from foveal.datasets import ImageSet, load_images, load_whole
from foveal.datasets.annotations import with_annotations
from foveal.explainers import EXPLAINERS, explainer
from foveal.foundation.files import read_json, write_json
from foveal.foundation.memory import keep_freed_memory
from foveal.images.photos import parts_of
from foveal.images.values import as_floats
from foveal.metrics.interval import wilson_interval
from foveal.models import FocusNet
from foveal.models.contributions import spread_over_patches
from foveal.models.crop_features import crop_parts

RESULTS = Path(__file__).parent.parent / "results" / "photos"
TESTED = "tested.json"
SLOW = ("rise", "occlusion", "integrated-gradients")  # measured on fewer images
NOT_MEASURED = ("model", "contributions", "random")  # explainers that are not compared
FOCUS = ("focus", "focus-relative", "focus-weights")  # explanations of the focus model
LIMITS = ("uniform", "possible")  # hits of a random candidate and of the best one


def summed_area_table(values: Tensor) -> Tensor:
    """Return the sums of values (B, H, W) above and to the left of each corner of a pixel.

    Returns:
        (B, H + 1, W + 1): zero in the first row and column.
    """
    return F.pad(values.double().cumsum(dim=-2).cumsum(dim=-1), (1, 0, 1, 0))


def crop_sums(values: Tensor, corners: Tensor, side: int) -> Tensor:
    """Return sums (B, N) of values (B, H, W) over squares with corners (N, 2) in pixels."""
    sums = summed_area_table(values)
    x, y = corners.clamp_min(0).unbind(-1)
    right = (corners[:, 0] + side).clamp(max=values.shape[-1])
    below = (corners[:, 1] + side).clamp(max=values.shape[-2])
    return sums[:, below, right] - sums[:, y, right] - sums[:, below, x] + sums[:, y, x]


def hits(heat: Tensor, regions: list[Tensor], corners: Tensor, side: int) -> Tensor:
    """Return for each image (B,) whether the crop with the most heat covers half of a region.

    Args:
        heat: (B, H, W).
        regions: for each image, masks (R, H, W), one per defect.
        corners: top left corners (N, 2) of the candidate crops in pixels.
        side: side of the crops in pixels.
    """
    best = crop_sums(heat, corners, side).argmax(dim=1)
    is_hit = []
    for masks, index in zip(regions, best.tolist(), strict=True):
        is_hit.append(bool(candidate_hits(masks, corners, side)[index]))
    return torch.tensor(is_hit)


def candidate_hits(regions: Tensor, corners: Tensor, side: int) -> Tensor:
    """Return for each candidate crop (N,) whether it covers half of a region (R, H, W)."""
    inside = crop_sums(regions, corners, side)  # (R, N)
    return (inside >= regions.sum(dim=(1, 2))[:, None] / 2).any(dim=0)


def focus_heat(name: str, model: FocusNet, image: Tensor) -> Tensor:
    """Return the heat (1, H, W) of an explanation of `FOCUS`, for an image (1, C, H, W)."""
    explanation = model.explain(image)
    terms, weights = explanation.contributions, explanation.weights  # (1, K, classes), (1, K)
    assert terms is not None
    assert weights is not None
    values = terms[:, :, int(explanation.predictions)]
    if name == "focus-relative":
        values = values - terms.mean(dim=2)
    if name == "focus-weights":
        values = weights
    return spread_over_patches(explanation, values)[:, 0]


def regions_of(mask: Tensor) -> Tensor:
    """Return the connected regions of a mask (H, W) as masks (R, H, W)."""
    from scipy.ndimage import label

    numbers, count = label(mask.numpy() > 0)
    numbers = torch.from_numpy(numbers)
    return torch.stack([(numbers == index).float() for index in range(1, count + 1)])


def heat_of(method: str, model: Any, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the heat (1, H, W) of a method, at the size of the focus model's images."""
    heat = explainer(method)(model, image).heat
    return F.interpolate(heat[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]


def images_of(data: str, model: Any, tested: Path) -> ImageSet[Any]:
    """Return the annotated images that a stored model was tested on."""
    shape = {"size": model.inputs.sizing, "channels": 3}
    if data == "deeppcb" or not tested.is_file():
        return with_annotations(load_images(data, "test", **shape), data)
    images, test_paths = load_whole(data, **shape), set(read_json(tested))
    indices = [index for index, path in enumerate(images.paths) if path in test_paths]
    return with_annotations(images.subset(torch.tensor(indices)), data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("focus", help="row of photos.py, or a zoo name")
    parser.add_argument("whole", help="row of photos.py, a model of the whole image")
    parser.add_argument("--work", type=Path, default=Path("runs/photos"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--few", type=int, default=40, help="images for slow methods")
    parser.add_argument("--without", nargs="*", default=[], help="methods to skip")
    options = parser.parse_args()
    keep_freed_memory()
    focus, whole = (
        foveal.load(
            str(path) if (path := options.work / options.data / "models" / name).is_dir() else name
        )
        for name in (options.focus, options.whole)
    )
    test_file = options.work / options.data / "models" / options.focus / TESTED
    focus_set, whole_set = (images_of(options.data, model, test_file) for model in (focus, whole))
    masks = [mask[0] for part in parts_of(focus_set.masks) for mask in part]
    whole_index = {path: index for index, path in enumerate(whole_set.paths)}
    focus_images, whole_images = (
        [image for part in parts_of(image_set.images) for image in part]
        for image_set in (focus_set, whole_set)
    )
    marked = [index for index, mask in enumerate(masks) if mask.any()]
    marked = marked[:: max(1, len(marked) // options.images)][: options.images]
    detector, _ = crop_parts(focus)
    names = [
        *FOCUS,
        "centre",
        *LIMITS,
        *(name for name in EXPLAINERS if name not in (*NOT_MEASURED, "centre")),
    ]
    path = options.out / options.data / "explanations.json"
    pair = f"{options.focus} beside {options.whole}"
    results = read_json(path) if path.is_file() else {}
    rows: dict[str, Any] = results.get(pair, {})
    for name in names:
        if name in rows or name in options.without:
            continue
        if name not in (*FOCUS, *LIMITS) and not explainer(name).supports(whole):
            continue
        indices = marked[: options.few] if name in SLOW else marked
        image_hits, started = [], time.perf_counter()
        for index in indices:
            size = tuple(masks[index].shape)
            finest = detector.candidates(size)[-1]  # ordered from coarse to fine crops
            regions = regions_of(masks[index])
            if name in LIMITS:
                is_covered = candidate_hits(regions, finest.corners_px, finest.side_px).double()
                image_hits.append(
                    (is_covered.mean() if name == "uniform" else is_covered.amax())[None]
                )
                continue
            if name in FOCUS:
                heat = focus_heat(name, focus, as_floats(focus_images[index][None]))
            else:
                whole_image = whole_images[whole_index[focus_set.paths[index]]]
                heat = heat_of(name, whole, as_floats(whole_image[None]), size)
            image_hits.append(hits(heat, [regions], finest.corners_px, finest.side_px))
        is_hit = torch.cat(image_hits).double()
        low, high = wilson_interval(round(float(is_hit.sum())), len(is_hit))
        rows[name] = {
            "hits": float(is_hit.mean()),
            "low": low,
            "high": high,
            "images": len(is_hit),
            "seconds_per_image": round((time.perf_counter() - started) / len(indices), 3),
        }
        print(name, rows[name], flush=True)
        in_order = {name: rows[name] for name in names if name in rows}
        write_json(path, results | {pair: in_order})


if __name__ == "__main__":
    main()
