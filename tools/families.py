"""Pictures of the architecture of each model family: docs/images/family-NAME.svg.

Each picture is a title, its boxes by key, and its arrows as (source, target) pairs of keys.
"""

from pathlib import Path

from drawing import Box, draw

IMAGES = Path(__file__).parents[1] / "docs" / "images"
IMAGE = Box(0, 0, "image|C × H × W", "data")
PATCHES = Box(2, 1, "patches|K × C × P × P", "evidence")
CLASSIFIER = Box(3, 1, "patch classifier|patches and positions")
LOGITS = Box(4, 1, "logits", "output")
CUT_ARROWS = [("image", "patches"), ("keypoints", "patches")]
CLASSIFY_ARROWS = [("patches", "classifier"), ("classifier", "logits")]


def _focus(detector: Box, keypoints: str, extra: dict[str, Box] | None = None) -> dict[str, Box]:
    """Return the boxes of a model that classifies patches at a detector's keypoints."""
    return {
        "image": IMAGE,
        "detector": detector,
        "keypoints": Box(2, 0, keypoints, "evidence"),
        "patches": PATCHES,
        "classifier": CLASSIFIER,
        "logits": LOGITS,
        **(extra or {}),
    }


FOCUS_ARROWS = [("image", "detector"), ("detector", "keypoints"), *CUT_ARROWS, *CLASSIFY_ARROWS]
FAMILIES: dict[str, tuple[str, dict[str, Box], list[tuple[str, str]]]] = {
    "focus": (
        "A learned detector finds keypoints; patches cut there are classified",
        _focus(Box(1, 0, "detector CNN|K heatmaps → means"), "keypoints|K × (x, y)"),
        FOCUS_ARROWS,
    ),
    "corners": (
        "A corner detector finds keypoints; patches cut there are classified",
        _focus(Box(1, 0, "Harris, Shi–Tomasi|nothing is learned", "fixed"), "keypoints|K × (x, y)"),
        FOCUS_ARROWS,
    ),
    "zoom": (
        "A learned detector finds locations and scales; patches sampled there are classified",
        _focus(Box(1, 0, "detector CNN|location and scale"), "windows|K × (x, y, scale)"),
        FOCUS_ARROWS,
    ),
    "glimpse": (
        "The detector sees a thumbnail, which counts as evidence; patches are cut from the image",
        {
            "image": IMAGE,
            "thumbnail": Box(1, 0, "thumbnail|H/s × W/s", "evidence"),
            "detector": Box(2, 0, "backbone|sees nothing else"),
            "keypoints": Box(3, 0, "keypoints|K × (x, y)", "evidence"),
            "patches": Box(3, 1, "patches|K × C × P × P", "evidence"),
            "classifier": Box(4, 1, "patch classifier|and the thumbnail's"),
            "logits": Box(5, 1, "logits", "output"),
        },
        [
            ("image", "thumbnail"),
            ("thumbnail", "detector"),
            ("detector", "keypoints"),
            ("detector", "classifier"),
            *CUT_ARROWS,
            *CLASSIFY_ARROWS,
        ],
    ),
    "high-resolution": (
        "A thumbnail is scored; patches at the best locations are cut at full resolution",
        {
            "image": Box(0, 0, "large image|stays in its file", "data"),
            "thumbnail": Box(1, 0, "thumbnail|H/s × W/s", "data"),
            "detector": Box(2, 0, "score map|of the thumbnail"),
            "keypoints": Box(3, 0, "keypoints|K × (x, y)", "evidence"),
            "patches": Box(3, 1, "patches|at full resolution", "evidence"),
            "attention": Box(4, 1, "patch attention|for each task"),
            "logits": Box(5, 1, "logits", "output"),
        },
        [
            ("image", "thumbnail"),
            ("thumbnail", "detector"),
            ("detector", "keypoints"),
            ("image", "patches"),
            ("keypoints", "patches"),
            ("patches", "attention"),
            ("attention", "logits"),
        ],
    ),
    "no-labels": (
        "A detector is trained to let a decoder rebuild the image from the patches alone",
        {
            "image": IMAGE,
            "detector": Box(1, 0, "detector CNN|never sees a label"),
            "keypoints": Box(2, 0, "keypoints|K × (x, y)", "evidence"),
            "patches": PATCHES,
            "decoder": Box(3, 1, "decoder|conv, mlp or vae"),
            "rebuilt": Box(4, 1, "rebuilt image|C × H × W", "output"),
        },
        [
            ("image", "detector"),
            ("detector", "keypoints"),
            *CUT_ARROWS,
            ("patches", "decoder"),
            ("decoder", "rebuilt"),
        ],
    ),
    "attention": (
        "Local features of several depths are weighted by maps; their sums are classified",
        {
            "image": Box(0, 0.5, "image|C × H × W", "data"),
            "backbone": Box(1, 0.5, "backbone|VGG or timm"),
            "local": Box(2, 0, "local features|of each depth", "data"),
            "whole": Box(2, 1, "global vector|what to look for", "data"),
            "maps": Box(3, 1, "attention maps|h × w, each depth", "evidence"),
            "sums": Box(3, 0, "weighted sums|one per depth"),
            "logits": Box(4, 0, "logits", "output"),
        },
        [
            ("image", "backbone"),
            ("backbone", "local"),
            ("backbone", "whole"),
            ("whole", "maps"),
            ("local", "maps"),
            ("local", "sums"),
            ("maps", "sums"),
            ("sums", "logits"),
        ],
    ),
    "self-attention": (
        "Self-attention blocks, in which each location weights its neighbours, "
        "replace the convolutions",
        {
            "image": Box(0, 0, "image|C × H × W", "data"),
            "halve": Box(1, 0, "halve|each stage", "fixed"),
            "blocks": Box(2, 0, "self-attention|window per location"),
            "mean": Box(3, 0, "mean|over all locations", "fixed"),
            "logits": Box(4, 0, "logits", "output"),
            "maps": Box(2, 1, "received attention|of each location", "evidence"),
        },
        [
            ("image", "halve"),
            ("halve", "blocks"),
            ("blocks", "mean"),
            ("mean", "logits"),
            ("blocks", "maps"),
        ],
    ),
    "baselines": (
        "Convolutions see the whole image; a post-hoc method explains them afterwards",
        {
            "image": Box(0, 0, "image|C × H × W", "data"),
            "cnn": Box(1, 0, "convolutions|small CNN, VGG-16"),
            "logits": Box(2, 0, "logits", "output"),
            "method": Box(2, 1, "post-hoc method|Grad-CAM, RISE, …", "fixed"),
            "map": Box(3, 1, "heat map|made afterwards", "evidence"),
        },
        [("image", "cnn"), ("cnn", "logits"), ("logits", "method"), ("method", "map")],
    ),
}


def pictures() -> dict[Path, str]:
    """Return each figure as SVG, by its path."""
    return {
        IMAGES / f"family-{name}.svg": draw(boxes, arrows, title)
        for name, (title, boxes, arrows) in FAMILIES.items()
    }


if __name__ == "__main__":
    for path, figure in pictures().items():
        path.write_text(figure, encoding="utf-8")
