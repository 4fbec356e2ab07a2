"""Static int8 quantisation of ONNX graphs, which is rejected if it loses too much accuracy."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from foveal.deployment.onnx.session import subgraph
from foveal.deployment.onnx.split_points import KEYPOINTS
from foveal.foundation.errors import UserError, missing_extra
from foveal.images.values import as_floats
from foveal.metrics.accuracy import accuracy
from foveal.metrics.classes import with_model_classes
from foveal.models.classifier import as_classifier
from foveal.models.image_model import ImageModel

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime.quantization import CalibrationDataReader

CALIBRATION_IMAGES = 500  # training images on which the ranges of activations are measured
CALIBRATION_BATCH_SIZE = 50
MAX_LOSS = 0.002  # maximum loss of accuracy, which is a fraction from 0 to 1
OPERATORS = ("Conv", "Gemm", "MatMul")  # operators that are quantised


@dataclass(frozen=True)
class Quantised:
    """A quantised graph, and its accuracy on the validation images.

    Attributes:
        graph: the quantised graph.
        part: the part that is quantised: `all`, or `classifier` if the detector stays in floats.
        accuracy: accuracy of the quantised graph, from 0 to 1.
        float_accuracy: accuracy of the graph before quantisation.
        beside: the additional graphs of a high-resolution model, by part.
    """

    graph: "ModelProto"
    part: str
    accuracy: float
    float_accuracy: float
    beside: Mapping[str, "ModelProto"] = field(default_factory=dict)

    @property
    def accuracy_loss(self) -> float:
        """Loss of accuracy; negative for a gain."""
        return self.float_accuracy - self.accuracy


def as_int8(proto: "ModelProto", train: ImageSet, val: ImageSet) -> Quantised:
    """Return a graph whose convolutions and matrix products compute in 8-bit integers.

    Weights have one scale per output channel; activation ranges are calibrated on training images
    (Jacob et al. 2018, arXiv:1712.05877). If this loses too much accuracy, the detector of a focus
    model stays in floats, because a keypoint that moves by a pixel selects another patch.

    Args:
        proto: a classifier's graph, see `onnx_graph`.
        train: images of the model's size; 500 of them are used for calibration.
        val: labelled images to measure the loss of accuracy on.

    Raises:
        UserError: more than 0.2 points of accuracy are lost, or the model is not a classifier.
    """
    reference = _classifier(proto)
    val, _ = with_model_classes(val, reference)
    float_accuracy = accuracy(reference, val)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    images = as_floats(train.images[order[:CALIBRATION_IMAGES]])
    batches = [{IMAGES: batch} for batch in images.split(CALIBRATION_BATCH_SIZE)]
    losses = []
    for part, float_nodes in _float_nodes_by_part(proto).items():
        graph = quantise(proto, batches, float_nodes)
        candidate = Quantised(graph, part, accuracy(_classifier(graph), val), float_accuracy)
        if candidate.accuracy_loss <= MAX_LOSS:
            return candidate
        losses.append(candidate.accuracy_loss)
    raise loss_error(losses, f"{val.name} ({val.split})")


def loss_error(losses: Sequence[float], data: str) -> UserError:
    """Return the error for quantised graphs that all lose too much accuracy.

    Args:
        losses: loss of accuracy of each graph, from 0 to 1.
        data: name of the images that it was measured on.
    """
    return UserError(
        f"Expected int8 to lose at most {100 * MAX_LOSS:.1f} points of accuracy on {data}, but it "
        f"would lose {100 * min(losses):.1f}: nothing was written. Export without --int8."
    )


def quantise(
    proto: "ModelProto", batches: Sequence[Mapping[str, Tensor]], float_nodes: Sequence[str] = ()
) -> "ModelProto":
    """Return a quantised graph, without measuring its accuracy.

    Args:
        proto: the graph, which is not changed.
        batches: inputs of the graph by name, for each calibration batch.
        float_nodes: names of nodes that stay in floats.

    Raises:
        UserError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_static
    except ImportError:
        raise missing_extra("onnx and onnxruntime", "onnx") from None
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)  # quantize_static changes its input
    with tempfile.TemporaryDirectory() as folder, _quiet_logging():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            copy,
            str(path),
            _calibration_reader(batches),
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=list(float_nodes),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _calibration_reader(batches: Sequence[Mapping[str, Tensor]]) -> "CalibrationDataReader":
    """Return a reader of batches for ONNX Runtime's calibration."""
    from onnxruntime.quantization import CalibrationDataReader

    class Calibration(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: value.numpy() for name, value in batch.items()}

    return Calibration()


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Silence the root logger's warnings, such as ONNX Runtime's, while the block runs."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _float_nodes_by_part(proto: "ModelProto") -> dict[str, list[str]]:
    """Return the nodes that stay in floats, by the part that is quantised.

    The parts are in the order in which they should be tried.
    """
    names = read_about(proto).names
    if KEYPOINTS not in names:
        return {"all": []}
    detector = subgraph(proto, [IMAGES], [names[KEYPOINTS]])
    return {"all": [], "classifier": [node.name for node in detector.graph.node]}


def _classifier(graph: "ModelProto") -> ImageModel:
    message = "int8 export needs a classifier, to measure the loss of accuracy."
    return as_classifier(as_onnx(graph), message)
