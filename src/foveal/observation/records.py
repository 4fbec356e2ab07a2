"""Explanations as plain values, one dictionary per image."""

import torch
from torch import Tensor

from foveal.images.geometry import corners_px, to_px
from foveal.observation.logits import class_logits
from foveal.observation.tensors import Observation


def explanation_dicts(explanation: Observation, top: int = 5) -> list[dict[str, object]]:
    """Return one plain dictionary per image, as `foveal explain --json` prints it.

    Args:
        explanation: explanation of B images.
        top: number of classes in `probabilities`, the most probable first.
    """
    # Each group of fields is a list of dictionaries, one per image.
    groups = [_predictions(explanation, top), _common_fields(explanation)]
    if explanation.keypoints is not None and explanation.patch_size is not None:
        patch_size = explanation.patch_size
        keypoints = _keypoints(explanation, explanation.keypoints, patch_size)
        groups.append([{"patch_size_px": patch_size, "keypoints": row} for row in keypoints])
    if explanation.maps is not None:
        size = explanation.size
        groups.append([{"attention": _peaks(peaks, size)} for peaks in explanation.peaks])
    return [
        {key: value for fields in image_groups for key, value in fields.items()}
        for image_groups in zip(*groups, strict=True)
    ]


def _common_fields(explanation: Observation) -> list[dict[str, object]]:
    """Return the fields that every explanation has, one dictionary per image."""
    height, width = explanation.size
    return [
        {
            "size_px": {"height": height, "width": width},
            "evidence_fraction": fraction,
            **fields,
            "method": explanation.method,
            "cost_forward_passes": explanation.cost,
        }
        for fraction, fields in zip(
            explanation.evidence_fraction.tolist(), _covered_fractions(explanation), strict=True
        )
    ]


def _covered_fractions(explanation: Observation) -> list[dict[str, float]]:
    """Return the fraction of each image that patches cover, one dictionary per image.

    The dictionaries are empty unless the samples of patches are means of blocks of pixels. In that
    case patches may cover more pixels than `evidence_fraction` counts values.
    """
    if not explanation.blocks:
        return [{}] * len(explanation)
    return [{"covered_fraction": fraction} for fraction in explanation.covered_fraction.tolist()]


def _predictions(explanation: Observation, top: int) -> list[dict[str, object]]:
    """Return each image's prediction, the probabilities of `top` classes and the rebuilding error.

    The prediction is missing for a model that is not a classifier, and the error for a model that
    does not rebuild images.
    """
    records: list[dict[str, object]] = [{} for _ in range(len(explanation))]
    if explanation.logits.shape[1]:
        probabilities, order = explanation.probabilities.sort(descending=True)
        rows = zip(
            records, probabilities[:, :top].tolist(), order[:, : max(top, 1)].tolist(), strict=True
        )
        for record, values, indices in rows:
            names = [explanation.class_name(index) for index in indices]
            record["prediction"] = names[0]
            record["probabilities"] = [
                {"class": name, "probability": value}
                for name, value in zip(names, values, strict=False)
            ]
    if explanation.rebuilt is not None:
        errors = (explanation.rebuilt - explanation.images).square().mean(dim=(1, 2, 3)).tolist()
        for record, error in zip(records, errors, strict=True):
            record["rebuilding_mse"] = error
    return records


def _peaks(peaks: Tensor, size: tuple[int, int]) -> list[dict[str, float]]:
    """Return one image's peaks (M, 3), as in `Observation.peaks`, as one dictionary per map."""
    return [
        {
            "x": float(x),
            "y": float(y),
            "x_px": round(float(x_px), 3),
            "y_px": round(float(y_px), 3),
            "times_even_share": float(multiple),
        }
        for (x, y, multiple), (x_px, y_px) in zip(peaks, to_px(peaks[:, :2], size), strict=True)
    ]


def _keypoints(
    explanation: Observation, keypoints: Tensor, patch_size: int
) -> list[list[dict[str, object]]]:
    """Return for each image one dictionary per keypoint (B, K, 2) and its patch."""
    scales = explanation.scales
    scales = torch.ones(keypoints.shape[:2]) if scales is None else scales
    top_left_px = corners_px(keypoints, patch_size, explanation.size, scales)
    if explanation.blocks:  # the first sample is the mean of a square around its position
        top_left_px = top_left_px - ((scales - 1) / 2).ceil()[..., None].long()
    centres_px = to_px(keypoints, explanation.size)
    columns = [column.tolist() for column in (keypoints, centres_px, top_left_px, scales)]
    columns.append(_patch_terms(explanation, keypoints.shape[1]))
    return [
        [
            {
                "x": x,
                "y": y,
                "x_px": round(x_px, 3),
                "y_px": round(y_px, 3),
                "left_px": left,
                "top_px": top,
                "scale": scale,
                **terms,
            }
            for (x, y), (x_px, y_px), (left, top), scale, terms in zip(*values, strict=True)
        ]
        for values in zip(*columns, strict=True)
    ]


def _patch_terms(explanation: Observation, patch_count: int) -> list[list[dict[str, float]]]:
    """Return for each image one dictionary per patch, with its weight and its contribution.

    The contribution is to the logit of the predicted class. A term that the model does not compute
    is missing.
    """
    patches: list[list[dict[str, float]]] = [
        [{} for _ in range(patch_count)] for _ in range(len(explanation))
    ]
    terms: dict[str, Tensor | None] = {"weight": explanation.weights}
    if explanation.contributions is not None:
        images = torch.arange(len(explanation))
        contributions = class_logits(explanation.contributions)
        terms["contribution"] = contributions[images, :, explanation.predictions]
    for name, values in terms.items():
        if values is not None:
            for image_patches, image_values in zip(patches, values.tolist(), strict=True):
                for patch, value in zip(image_patches, image_values, strict=True):
                    patch[name] = value
    return patches
