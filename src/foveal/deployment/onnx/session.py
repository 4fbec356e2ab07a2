"""ONNX Runtime sessions for a whole graph or for parts between named tensors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.foundation.errors import UserError, missing_extra

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession


class Graph:
    """A graph that can compute any of its tensors from any others.

    The part of the graph between them is extracted on first use, so that no other tensors are
    computed.

    Args:
        proto: the graph; its inputs, outputs and split points have known types.
        threads: CPU threads per call.

    Raises:
        UserError: ONNX Runtime is not installed.
    """

    def __init__(self, proto: "ModelProto", threads: int = 1):
        try:
            import onnxruntime  # noqa: F401
        except ImportError:
            raise missing_extra("onnxruntime", "onnx") from None
        self.proto = proto
        self.threads = threads
        self._sessions: dict[tuple[tuple[str, ...], tuple[str, ...]], InferenceSession] = {}

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors `outputs`, computed from `inputs`.

        Args:
            inputs: float tensors by name, from which all outputs can be computed.
            outputs: names of tensors; inputs are returned unchanged.

        Raises:
            UserError: a tensor does not have the expected shape, or the graph cannot be run.
        """
        computed = [name for name in dict.fromkeys(outputs) if name not in inputs]
        tensors = dict(inputs)
        if computed:
            session = self._session(tuple(inputs), tuple(computed))
            # The extracted part may not read all inputs, such as scales.
            arrays = {
                value.name: inputs[value.name].detach().cpu().float().contiguous().numpy()
                for value in session.get_inputs()
            }
            try:
                results = session.run(computed, arrays)
            except Exception as error:  # ONNX Runtime has its own exception class per kind of fault
                raise UserError(
                    f"The ONNX graph cannot read this input: {_reason(error)}"
                ) from None
            pairs = zip(computed, results, strict=True)
            tensors |= {name: torch.from_numpy(array) for name, array in pairs}
        return {name: tensors[name] for name in outputs}

    def _session(self, inputs: tuple[str, ...], computed: tuple[str, ...]) -> "InferenceSession":
        key = (inputs, computed)
        if key not in self._sessions:
            self._sessions[key] = session(cut(self.proto, inputs, computed), self.threads)
        return self._sessions[key]


def cut(proto: "ModelProto", inputs: Sequence[str], outputs: Sequence[str]) -> "ModelProto":
    """Return the part of a graph that computes some of its tensors from others.

    Raises:
        UserError: the graph has no such tensors.
    """
    from onnx.utils import Extractor

    try:
        return Extractor(proto).extract_model(list(inputs), list(outputs))
    except ValueError as error:
        raise UserError(f"The ONNX graph was not written by Foveal: {_reason(error)}") from None


def session(proto: "ModelProto", threads: int) -> "InferenceSession":
    """Return a session that runs a graph on the CPU.

    Args:
        proto: the graph.
        threads: CPU threads per call.

    Raises:
        UserError: the graph is broken, or this version of ONNX Runtime does not support it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has its own exception class per kind of fault
        raise UserError(f"ONNX Runtime cannot load the graph: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
