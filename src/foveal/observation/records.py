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
    parts = [_predictions(explanation, top), _common_fields(explanation)]
    if explanation.keypoints is not None and explanation.patch_size is not None:
        patch_size = explanation.patch_size
        keypoints = _keypoints(explanation, explanation.keypoints, patch_size)
        parts.append([{"patch_size_px": patch_size, "keypoints": row} for row in keypoints])
    if explanation.maps is not None:
        size = explanation.size
        parts.append([{"attention": _peaks(peaks, size)} for peaks in explanation.peaks])
    return [
        {key: value for part in image_parts for key, value in part.items()}
        for image_parts in zip(*parts, strict=True)
    ]


def _common_fields(explanation: Observation) -> list[dict[str, object]]:
    return [
        {
            "size_px": {"height": explanation.size[0], "width": explanation.size[1]},
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
    """Return the fraction of each image that patches cover, if samples are means of blocks."""
    if not explanation.blocks:
        return [{}] * len(explanation)
    return [{"covered_fraction": fraction} for fraction in explanation.covered_fraction.tolist()]


def _predictions(explanation: Observation, top: int) -> list[dict[str, object]]:
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
    """Return one image's peaks (M, 3) as plain values."""
    return [
        {
            "x": float(x),
            "y": float(y),
            "x_px": round(float(px[0]), 3),
            "y_px": round(float(px[1]), 3),
            "times_even_share": float(times),
        }
        for (x, y, times), px in zip(peaks, to_px(peaks[:, :2], size), strict=True)
    ]


def _keypoints(
    explanation: Observation, keypoints: Tensor, patch_size: int
) -> list[list[dict[str, object]]]:
    """Return the keypoints (B, K, 2) of each image, and the corners of their patches."""
    scales = explanation.scales
    scales = torch.ones(keypoints.shape[:2]) if scales is None else scales
    first_px = corners_px(keypoints, patch_size, explanation.size, scales)
    if explanation.blocks:  # the square of the first sample extends half its side further
        first_px = first_px - ((scales - 1) / 2).ceil()[..., None].long()
    centres_px = to_px(keypoints, explanation.size)
    columns = [column.tolist() for column in (keypoints, centres_px, first_px, scales)]
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
                **weight,
            }
            for (x, y), (x_px, y_px), (left, top), scale, weight in zip(*image, strict=True)
        ]
        for image in zip(*columns, strict=True)
    ]


def _patch_terms(explanation: Observation, keypoints: int) -> list[list[dict[str, float]]]:
    """Return each patch's weight and its contribution to the predicted class, if available."""
    patches: list[list[dict[str, float]]] = [
        [{} for _ in range(keypoints)] for _ in range(len(explanation))
    ]
    terms: dict[str, Tensor | None] = {"weight": explanation.weights}
    if explanation.contributions is not None:
        rows = torch.arange(len(explanation))
        contributions = class_logits(explanation.contributions)
        terms["contribution"] = contributions[rows, :, explanation.predictions]
    for name, values in terms.items():
        for image, row in zip(patches, [] if values is None else values.tolist(), strict=False):
            for patch, value in zip(image, row, strict=True):
                patch[name] = value
    return patches
