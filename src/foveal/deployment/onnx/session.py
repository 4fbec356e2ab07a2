"""ONNX Runtime sessions for a whole graph or for the subgraph between named tensors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.foundation.errors import UserError, missing_extra

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession


class Graph:
    """A graph that can compute any of its named tensors from others.

    The subgraph between inputs and outputs is extracted when they are first used, so that no other
    tensors are computed.

    Args:
        proto: the graph. It must state the types of all tensors that are used as inputs or outputs.
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
        to_compute = [name for name in dict.fromkeys(outputs) if name not in inputs]
        tensors = dict(inputs)
        if to_compute:
            session = self._session(tuple(inputs), tuple(to_compute))
            # Only the inputs that the subgraph reads: it may not read scales, for example.
            arrays = {
                value.name: inputs[value.name].detach().cpu().float().contiguous().numpy()
                for value in session.get_inputs()
            }
            try:
                results = session.run(to_compute, arrays)
            except Exception as error:  # ONNX Runtime has its own exception class per kind of fault
                raise UserError(
                    f"The ONNX graph cannot read this input: {_reason(error)}"
                ) from None
            pairs = zip(to_compute, results, strict=True)
            tensors |= {name: torch.from_numpy(array) for name, array in pairs}
        return {name: tensors[name] for name in outputs}

    def _session(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> "InferenceSession":
        key = (inputs, outputs)
        if key not in self._sessions:
            self._sessions[key] = cpu_session(subgraph(self.proto, inputs, outputs), self.threads)
        return self._sessions[key]


def subgraph(proto: "ModelProto", inputs: Sequence[str], outputs: Sequence[str]) -> "ModelProto":
    """Return the part of a graph that computes some of its tensors from others.

    Args:
        proto: the graph, which is not changed.
        inputs: names of the tensors to compute from.
        outputs: names of the tensors to compute.

    Raises:
        UserError: the graph has no such tensors.
    """
    from onnx.utils import Extractor

    try:
        return Extractor(proto).extract_model(list(inputs), list(outputs))
    except ValueError as error:
        raise UserError(f"The ONNX graph was not written by Foveal: {_reason(error)}") from None


def cpu_session(proto: "ModelProto", threads: int) -> "InferenceSession":
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
