"""Tensors of an explanation and their geometry, for figures, metrics and JSON.

Keypoints are the centres of patches. Grid units are coordinates in [-1, 1] across the image. A
depth is a stage of a backbone; an attention model may have one map for each of several depths.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from foveal.images.geometry import coverage, covered_px, evidence_px, from_px, patch_mask
from foveal.observation.indexing import Index, selection
from foveal.observation.logits import predictions, probabilities
from foveal.observation.values import ATTENTION, Values

# Names of the tensors that a model computes, in the order of an exported graph's outputs.
COMPUTED = (
    "logits",
    "keypoints",
    "patches",
    "scales",
    "maps",
    "rebuilt",
    "thumbnail",
    "weights",
    "task_logits",
    "contributions",
)


@dataclass(frozen=True)
class Observation:
    """A model's logits for B images, and the evidence that they were computed from.

    All tensors are on the CPU, and all except the originals have the same first dimension B. The
    result of `ImageModel.observe`, which exists only within one forward pass, differs: it is on the
    model's device, and its images, patches and thumbnail are normalised.

    Attributes:
        images: (B, C, H, W) in [0, 1], as given to the model; for large images, of which the model
            reads only parts, their thumbnails.
        logits: (B, classes), from the same forward pass as the evidence; (B, 1) for a binary
            classifier with a single logit; (B, 0) for a model that is not a classifier.
        keypoints: (B, K, 2) in grid units, or None.
        patches: (B, K, C, P, P) in [0, 1], or None.
        scales: (B, K) pixels from one sample of a patch to the next, or None if all are 1.
        maps: (B, M, H, W) raw values per pixel, such as attention weights, or None.
        rebuilt: (B, C, H, W) in [0, 1], the image rebuilt from the patches, or None.
        thumbnail: (B, C, h, w) in [0, 1], read in addition to the patches, or None.
        weights: (B, K), attention of the model to each patch, or None.
        task_logits: (B, T, classes) for a model with several tasks, the main one first, or None.
        contributions: (B, K, classes), what each patch adds to each logit; None unless the logits
            are sums over patches plus a bias.
        blocks: whether each sample of a patch is the mean of a square with a side of `scales`
            pixels; if not, it is a bilinear sample.
        extent: height and width in pixels of the large images whose thumbnails are in `images`;
            None if `images` are the images themselves.
        originals: B images (C', H', W') in [0, 1] of any sizes, before they were resized for the
            model; figures show these. Empty if figures show `images`.
        classes: a name for each class.
        method: name of the explainer: `model` for the model itself, or a post-hoc method.
        cost: forward passes that the explanation took, including the prediction.
        values: meaning of the values of the maps.
    """

    images: Tensor
    logits: Tensor
    keypoints: Tensor | None = None
    patches: Tensor | None = None
    scales: Tensor | None = None
    maps: Tensor | None = None
    rebuilt: Tensor | None = None
    thumbnail: Tensor | None = None
    weights: Tensor | None = None
    task_logits: Tensor | None = None
    contributions: Tensor | None = None
    blocks: bool = False
    extent: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()
    method: str = "model"
    cost: float = 1.0
    originals: tuple[Tensor, ...] = ()
    values: Values = ATTENTION

    def __post_init__(self) -> None:
        # The lengths are compared only if there are originals: during the export of a graph there
        # are none, and len() of a traced tensor would fix the batch size of the graph.
        if self.originals and len(self.originals) != len(self):
            raise ValueError(
                f"Expected {len(self)} originals, one per image, or none, but got "
                f"{len(self.originals)}."
            )

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: Index) -> Self:
        """Return the explanation of one or several images; one image has a batch dimension of 1.

        Args:
            index: an integer of any kind, a slice, a list or array of integers, or a mask of B
                booleans; negative integers count from the end.

        Raises:
            IndexError: there is no such image.
            TypeError: the index is of another type.
        """
        selected = selection(index, len(self))
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changes: dict[str, Any] = {
            name: value[selected] for name, value in values.items() if isinstance(value, Tensor)
        }
        if self.originals:
            indices = torch.arange(len(self))[selected].tolist()
            changes["originals"] = tuple(self.originals[i] for i in indices)
        return replace(self, **changes)

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    def computed(self) -> dict[str, Tensor]:
        """Return the tensors of `COMPUTED` that are not None, by name."""
        tensors = {name: getattr(self, name) for name in COMPUTED}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.extent or (self.images.shape[-2], self.images.shape[-1])

    @property
    def patch_size(self) -> int | None:
        """Side of the patches in pixels, or None."""
        return None if self.patches is None else self.patches.shape[-1]

    @property
    def probabilities(self) -> Tensor:
        """(B, classes); (B, 2) for a single logit, by the sigmoid."""
        return probabilities(self.logits)

    @property
    def predictions(self) -> Tensor:
        """(B,) class indices; for a single logit, 1 where it is above 0."""
        return predictions(self.logits)

    @property
    def evidence(self) -> Tensor:
        """(B, H, W) booleans: the pixels that the decision was made from; all if it has no patches.

        A patch with a scale above 1 counts as the whole square that it spans, which contains at
        least the pixels that were read. The pixels that the model reads only from a thumbnail are
        not included.
        """
        if self.keypoints is None or self.patch_size is None:
            return torch.ones(len(self), *self.size, dtype=torch.bool)
        return patch_mask(self.keypoints, self.patch_size, self.size, self.scales, self.blocks)

    @property
    def evidence_fraction(self) -> Tensor:
        """(B,): values that the decision was made from, divided by the image's pixels; at most 1.

        A sample that is a mean of pixels counts as one value. A thumbnail's pixels count too.
        """
        if self.keypoints is None or self.patch_size is None:
            return torch.ones(len(self))
        height, width = self.size
        thumbnail_px = 0 if self.thumbnail is None else self.thumbnail[0, 0].numel()
        patch_geometry = (self.keypoints, self.patch_size, self.size, self.scales)
        values = evidence_px(*patch_geometry, thumbnail_px, self.blocks)
        return (values / (height * width)).to(self.keypoints.dtype)

    @property
    def covered_fraction(self) -> Tensor:
        """(B,): fraction of the image's pixels that the patches cover; 1 without patches."""
        if self.keypoints is None or self.patch_size is None:
            return torch.ones(len(self))
        height, width = self.size
        patch_geometry = (self.keypoints, self.patch_size, self.size, self.scales)
        covered = covered_px(*patch_geometry, self.blocks)
        return (covered / (height * width)).to(self.keypoints.dtype)

    @property
    def heat(self) -> Tensor:
        """(B, H, W): importance of each pixel, on the explanation's own scale.

        For patches it is the number of patches that show the pixel. For a single map it is the raw
        values. For several maps, each map is divided by its mean, because the weights of a fine map
        are smaller than those of a coarse one, and the results are averaged over the maps.

        Raises:
            ValueError: there are neither maps nor patches.
        """
        if self.maps is not None:
            maps = self.maps.float()
            if maps.shape[1] == 1:
                return maps[:, 0]
            means = maps.mean(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
            return (maps / means).mean(dim=1)
        if self.keypoints is None or self.patch_size is None:
            raise ValueError(
                "This explanation has no maps and no patches: for a model that reads the whole "
                "image, use a post-hoc method, foveal.attribute(model, images, 'grad-cam')."
            )
        return coverage(self.keypoints, self.patch_size, self.size, self.scales, self.blocks)

    @property
    def peaks(self) -> Tensor:
        """(B, M, 3): x and y in grid units of each map's maximum, and maximum divided by mean.

        In a coarse map, where one value fills a rectangle of pixels, x and y are the centre of the
        rectangle. If several locations share the maximum, the first one, row by row, is returned.

        Raises:
            ValueError: there are no maps.
        """
        if self.maps is None:
            raise ValueError("This explanation has no maps, and therefore no peaks.")
        height, width = self.size
        maps = self.maps.float()
        maxima = maps.amax(dim=(-2, -1))  # (B, M)
        is_maximum = maps == maxima[..., None, None]
        first_index = (is_maximum.flatten(2).cumsum(dim=-1) == 0).sum(dim=-1)
        row, column = first_index // width, first_index % width
        # The marks in the row and in the column of the first maximum.
        in_row = is_maximum.gather(2, row[..., None, None].expand(-1, -1, 1, width))[:, :, 0]
        in_column = is_maximum.gather(3, column[..., None, None].expand(-1, -1, height, 1))[..., 0]
        x_px = column + (_run_length(in_row, column) - 1) / 2
        y_px = row + (_run_length(in_column, row) - 1) / 2
        locations = from_px(torch.stack([x_px, y_px], dim=-1), self.size)
        multiples = maxima / maps.mean(dim=(-2, -1)).clamp_min(1e-12)
        return torch.cat([locations, multiples[..., None]], dim=-1)

    def top_evidence(self, fraction: float) -> Tensor:
        """Return the evidence as booleans (B, H, W): the patches, or the hottest pixels of maps.

        Pixels of equal heat are ranked in a fixed random order, which favours no side of the image.

        Args:
            fraction: fraction of the pixels that is returned for maps, above 0 and up to 1. It has
                no effect on the evidence of patches.
        """
        if self.maps is None:
            return self.evidence
        height, width = self.size
        count = max(1, round(fraction * height * width))
        return ranks(self.heat) < count

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its index if it has none.

        For a single logit with one class name, index 1 is that class and index 0 its absence.
        """
        if self.logits.shape[-1] == len(self.classes) == 1:
            return self.classes[0] if index else f"not {self.classes[0]}"
        return self.classes[index] if index < len(self.classes) else str(index)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join explanations of batches by the same model; a single one is returned unchanged."""
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if isinstance(getattr(parts[0], field.name), Tensor)
        }
        originals = tuple(original for part in parts for original in part.originals)
        return replace(parts[0], **joined, originals=originals)


def _run_length(marks: Tensor, start: Tensor) -> Tensor:
    """Return how many consecutive marks (B, M, L) are set from the index `start` (B, M) on."""
    is_before = torch.arange(marks.shape[-1]) < start[..., None]
    return (marks | is_before).int().cumprod(dim=-1).sum(dim=-1) - start


def ranks(heat: Tensor) -> Tensor:
    """Return the rank of each pixel of (B, H, W) by heat, 0 for the maximum.

    Ties are broken by a random order that is the same for every image and every call.
    """
    batch, height, width = heat.shape
    shuffled = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))
    order = heat.flatten(1)[:, shuffled].argsort(dim=1, descending=True, stable=True)
    positions = torch.empty_like(order)
    positions.scatter_(1, shuffled[order], torch.arange(height * width).expand(batch, -1))
    return positions.unflatten(1, (height, width))
