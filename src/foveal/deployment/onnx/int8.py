"""Static int8 quantisation of ONNX graphs, limited by its loss of accuracy."""

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
from foveal.deployment.onnx.session import cut
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

CALIBRATION_IMAGES = 500  # number of training images
MAX_LOSS = 0.002  # maximum loss of accuracy
OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Quantised:
    """A quantised graph, and its accuracy on the validation images.

    Attributes:
        graph: the quantised graph.
        part: the quantised part: `all`, or `classifier` if the detector stays in floats.
        accuracy: accuracy of this graph.
        float_accuracy: accuracy of the graph before quantisation.
        beside: the further graphs of a high-resolution model.
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
    model stays in floats, as moving a location by a pixel selects another patch.

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
    batches = [{IMAGES: batch} for batch in images.split(50)]
    losses = []
    for part, float_nodes in _parts(proto).items():
        graph = quantise(proto, batches, float_nodes)
        candidate = Quantised(graph, part, accuracy(_classifier(graph), val), float_accuracy)
        if candidate.accuracy_loss <= MAX_LOSS:
            return candidate
        losses.append(candidate.accuracy_loss)
    raise loss_error(losses, f"{val.name} ({val.split})")


def loss_error(losses: Sequence[float], data: str) -> UserError:
    """Return the error for graphs that all lose too much accuracy."""
    return UserError(
        f"Expected int8 to lose at most {100 * MAX_LOSS:.1f} points of accuracy on {data}, but it "
        f"would lose {100 * min(losses):.1f}: nothing was written. Export without --int8."
    )


def quantise(
    proto: "ModelProto", batches: Sequence[Mapping[str, Tensor]], float_nodes: Sequence[str] = ()
) -> "ModelProto":
    """Return a quantised graph, however much accuracy it loses.

    Args:
        proto: the graph, which is not changed.
        batches: inputs of the graph by name, to calibrate on.
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
    copy.CopyFrom(proto)  # the tools change their input
    with tempfile.TemporaryDirectory() as folder, _quiet_logging():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            copy,
            str(path),
            _calibration(batches),
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=list(float_nodes),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _calibration(batches: Sequence[Mapping[str, Tensor]]) -> "CalibrationDataReader":
    """Return a reader of batches for ONNX Runtime's calibration."""
    from onnxruntime.quantization import CalibrationDataReader

    class Calibration(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: t.numpy() for name, t in batch.items()}

    return Calibration()


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Silence warnings of the root logger, which the tools log to, while the block runs."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _parts(proto: "ModelProto") -> dict[str, list[str]]:
    """Return the parts that can be quantised, with the names of the nodes that stay in floats."""
    names = read_about(proto).names
    if KEYPOINTS not in names:
        return {"all": []}
    detector = cut(proto, [IMAGES], [names[KEYPOINTS]])
    return {"all": [], "classifier": [node.name for node in detector.graph.node]}


def _classifier(graph: "ModelProto") -> ImageModel:
    message = "int8 export needs a classifier, to measure the loss of accuracy."
    return as_classifier(as_onnx(graph), message)
