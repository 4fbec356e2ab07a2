"""Do explanations find the defect? A hit is the best candidate crop covering half of one.

The heat of every method is averaged over the same candidate crops, those of the focus model. Its
own heat is what its crops add to the logit of the prediction. The other methods explain a model of
the whole image. Both were trained by `photos.py`, which keeps them in its --work. Needs scipy.

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
from foveal.models.crop_features import parts_of as parts_of_crops

RESULTS = Path(__file__).parent.parent / "results" / "photos"
TESTED = "tested.json"
SLOW = ("rise", "occlusion", "integrated-gradients")  # that are measured on fewer images
NOT_MAPS = ("model", "contributions", "random")


def cumulated(values: Tensor) -> Tensor:
    """Return sums (B, H + 1, W + 1) over all rows above and columns to the left."""
    return F.pad(values.double().cumsum(dim=-2).cumsum(dim=-1), (1, 0, 1, 0))


def over_crops(values: Tensor, corners: Tensor, side: int) -> Tensor:
    """Return sums of values (B, H, W) over squares (B, N)."""
    sums = cumulated(values)
    x, y = corners.clamp_min(0).unbind(-1)
    right = (corners[:, 0] + side).clamp(max=values.shape[-1])
    below = (corners[:, 1] + side).clamp(max=values.shape[-2])
    return sums[:, below, right] - sums[:, y, right] - sums[:, below, x] + sums[:, y, x]


def hits(heat: Tensor, regions: list[Tensor], corners: Tensor, side: int) -> Tensor:
    """Return for each image whether the crop of the highest heat covers half of a region.

    Args:
        heat: (B, H, W).
        regions: of each image, masks (R, H, W), one per defect.
        corners: (N, 2) of the candidate crops.
        side: of the crops in pixels.
    """
    best = over_crops(heat, corners, side).argmax(dim=1)
    is_hit = []
    for masks, index in zip(regions, best.tolist(), strict=True):
        inside = over_crops(masks, corners[index : index + 1], side)[:, 0]
        is_hit.append(bool((inside >= masks.sum(dim=(1, 2)) / 2).any()))
    return torch.tensor(is_hit)


def expected(regions: Tensor, corners: Tensor, side: int) -> float:
    """Return how often a candidate that is drawn at random covers half of a region."""
    inside = over_crops(regions, corners, side)  # (R, N)
    return float((inside >= regions.sum(dim=(1, 2))[:, None] / 2).any(dim=0).double().mean())


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
    """Return the annotated images that a kept model was tested on."""
    shape = {"size": model.inputs.sizing, "channels": 3}
    if data == "deeppcb" or not tested.is_file():
        return with_annotations(load_images(data, "test", **shape), data)
    images, chosen = load_whole(data, **shape), set(read_json(tested))
    rows = [index for index, path in enumerate(images.paths) if path in chosen]
    return with_annotations(images.subset(torch.tensor(rows)), data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("focus", help="row of photos.py, or a zoo name")
    parser.add_argument("whole")
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
    tested = options.work / options.data / "models" / options.focus / TESTED
    sets = [images_of(options.data, model, tested) for model in (focus, whole)]
    masks = [mask[0] for part in parts_of(sets[0].masks) for mask in part]
    order = {path: index for index, path in enumerate(sets[1].paths)}
    images = [[image for part in parts_of(one.images) for image in part] for one in sets]
    marked = [i for i, mask in enumerate(masks) if mask.any()]
    marked = marked[:: max(1, len(marked) // options.images)][: options.images]
    detector, _ = parts_of_crops(focus)
    names = [
        "focus",
        "centre",
        "uniform",
        *(n for n in EXPLAINERS if n not in (*NOT_MAPS, "centre")),
    ]
    path, pair = (
        options.out / options.data / "explanations.json",
        f"{options.focus} beside {options.whole}",
    )
    results = read_json(path) if path.is_file() else {}
    rows: dict[str, Any] = results.get(pair, {})
    for name in names:
        if name in rows or name in options.without:
            continue
        if name not in ("focus", "uniform") and not explainer(name).supports(whole):
            continue
        indices = marked[: options.few] if name in SLOW else marked
        image_hits, started = [], time.perf_counter()
        for index in indices:
            size = tuple(masks[index].shape)
            finest = detector.candidates(size)[-1]
            regions = regions_of(masks[index])
            if name == "uniform":
                rate = expected(regions, finest.corners_px, finest.side_px)
                image_hits.append(torch.tensor([rate]))
                continue
            if name == "focus":
                heat = focus.contributions(as_floats(images[0][index][None])).maps[:, 0]
            else:
                whole_image = images[1][order[sets[0].paths[index]]]
                heat = heat_of(name, whole, as_floats(whole_image[None]), size)
            image_hits.append(hits(heat, [regions], finest.corners_px, finest.side_px))
        hit = torch.cat(image_hits).double()
        low, high = wilson_interval(round(float(hit.sum())), len(hit))
        rows[name] = {
            "hits": float(hit.mean()),
            "low": low,
            "high": high,
            "images": len(hit),
            "seconds_per_image": round((time.perf_counter() - started) / len(indices), 3),
        }
        print(name, rows[name], flush=True)
        write_json(path, results | {pair: rows})


if __name__ == "__main__":
    main()
