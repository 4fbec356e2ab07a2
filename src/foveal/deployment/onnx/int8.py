"""Graphs of 8-bit whole numbers, as far as they answer as well as those of floats."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.deployment.onnx.about import read_about
from foveal.deployment.onnx.graph import IMAGES
from foveal.deployment.onnx.loading import as_onnx
from foveal.deployment.onnx.session import cut
from foveal.deployment.onnx.split_points import KEYPOINTS
from foveal.foundation.errors import UserError, missing_extra
from foveal.images.values import as_floats
from foveal.metrics.accuracy import accuracy
from foveal.metrics.classes import as_known
from foveal.models.classifier import as_classifier
from foveal.models.image_model import ImageModel

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATED_ON = 500  # training images
ALLOWED = 0.002  # of the accuracy, that may be lost
OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Quantised:
    """A graph of 8-bit numbers, and what it costs in accuracy on the validation images.

    Attributes:
        graph: of 8-bit numbers.
        part: what of it is of 8 bits: `all`, or `classifier`, where places are found in floats.
        accuracy: of this graph.
        float_accuracy: of the graph that it was made of.
        beside: the other graphs of a high-resolution model.
    """

    graph: "ModelProto"
    part: str
    accuracy: float
    float_accuracy: float
    beside: Mapping[str, "ModelProto"] = field(default_factory=dict)

    @property
    def lost(self) -> float:
        """How much of the accuracy is lost; negative where it is gained."""
        return self.float_accuracy - self.accuracy


def as_int8(proto: "ModelProto", train: ImageSet, val: ImageSet) -> Quantised:
    """Return a graph whose convolutions and products are of 8-bit whole numbers.

    Weights have a scale for each output channel; the range of what flows between is taken from
    training images (Jacob et al. 2018, arXiv:1712.05877). Where all of it loses too much, the
    detector of a focus model stays in floats: a place that moves by a pixel shows another patch.

    Args:
        proto: of `onnx_graph`, of a classifier.
        train: images of the model's size; 500 of them calibrate.
        val: labelled images that say what is lost.

    Raises:
        UserError: more than 0.2 points of accuracy are lost, or the model is no classifier.
    """
    reference = _classifier(proto)
    val, _ = as_known(val, reference)
    exact = accuracy(reference, val)
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    images = as_floats(train.images[drawn[:CALIBRATED_ON]])
    batches = [{IMAGES: batch} for batch in images.split(50)]
    lost = []
    for part, kept in _parts(proto).items():
        graph = quantised(proto, batches, kept)
        found = Quantised(graph, part, accuracy(_classifier(graph), val), exact)
        if found.lost <= ALLOWED:
            return found
        lost.append(found.lost)
    raise refused(lost, f"{val.name} ({val.split})")


def refused(lost: Sequence[float], on: str) -> UserError:
    """Return the error for graphs that lose too much of the accuracy, each of them so much."""
    return UserError(
        f"int8 would lose {100 * min(lost):.1f} points of accuracy on {on}, "
        f"more than {100 * ALLOWED:.1f}: not written. Export without int8."
    )


def quantised(
    proto: "ModelProto", batches: Sequence[Mapping[str, Tensor]], kept: Sequence[str] = ()
) -> "ModelProto":
    """Return a graph of 8-bit whole numbers, whatever it loses.

    Args:
        proto: the graph, which stays as it is.
        batches: what the graph takes, by name, of images that calibrate.
        kept: names of nodes that stay in floats.

    Raises:
        UserError: ONNX Runtime's tools are not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    except ImportError:
        raise missing_extra("onnx and onnxruntime", "onnx") from None

    class Calibration(CalibrationDataReader):
        """Gives images in batches."""

        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: t.numpy() for name, t in batch.items()}

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)  # the tools write into what they are given
    chatter = logging.getLogger()
    level = chatter.level
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        chatter.setLevel(logging.ERROR)
        try:
            quantize_static(
                copied,
                str(path),
                Calibration(),
                op_types_to_quantize=list(OPERATORS),
                nodes_to_exclude=list(kept),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            chatter.setLevel(level)
        return onnx.load(path)


def _parts(proto: "ModelProto") -> dict[str, list[str]]:
    """Return what can be of 8 bits, and which nodes stay in floats for it."""
    names = read_about(proto).names
    if KEYPOINTS not in names:
        return {"all": []}
    finding = cut(proto, [IMAGES], [names[KEYPOINTS]])
    return {"all": [], "classifier": [node.name for node in finding.graph.node]}


def _classifier(graph: "ModelProto") -> ImageModel:
    otherwise = "int8 is for classifiers, whose accuracy says what it costs."
    return as_classifier(as_onnx(graph), otherwise)
