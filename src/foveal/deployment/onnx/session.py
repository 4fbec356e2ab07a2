"""Run an ONNX graph, whole or cut at named tensors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.foundation.errors import UserError, missing_extra

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession


class Graph:
    """A graph that runs from any of its tensors to any others.

    What is asked for is cut out of the graph and made ready when it is first needed, so that
    nothing is computed that nobody wants.

    Args:
        proto: the graph, whose inputs, outputs and places to cut have known types.
        threads: of the processor that one call may use.

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

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors `wanted` for those given.

        Args:
            given: every tensor that those wanted are computed from, floats.
            wanted: names of tensors; one that is given is given back.

        Raises:
            UserError: a tensor is not of the shape that the graph was made for, or the graph
                cannot be run.
        """
        computed = [name for name in dict.fromkeys(wanted) if name not in given]
        found = dict(given)
        if computed:
            session = self._session(tuple(given), tuple(computed))
            # A graph need not read all that it is given: held keypoints, but no scales.
            arrays = {
                taken.name: given[taken.name].detach().cpu().float().contiguous().numpy()
                for taken in session.get_inputs()
            }
            try:
                answers = session.run(computed, arrays)
            except Exception as error:  # ONNX Runtime raises classes of its own, one a fault
                raise UserError(f"The ONNX graph cannot read this: {_reason(error)}") from None
            found |= {name: torch.from_numpy(a) for name, a in zip(computed, answers, strict=True)}
        return {name: found[name] for name in wanted}

    def _session(self, given: tuple[str, ...], computed: tuple[str, ...]) -> "InferenceSession":
        key = (given, computed)
        if key not in self._sessions:
            self._sessions[key] = session(cut(self.proto, given, computed), self.threads)
        return self._sessions[key]


def cut(proto: "ModelProto", given: Sequence[str], wanted: Sequence[str]) -> "ModelProto":
    """Return the part of a graph that leads from some of its tensors to others.

    Raises:
        UserError: the graph has no such tensors.
    """
    from onnx.utils import Extractor

    try:
        return Extractor(proto).extract_model(list(given), list(wanted))
    except ValueError as error:
        raise UserError(f"The ONNX graph is not one of Foveal's: {_reason(error)}") from None


def session(proto: "ModelProto", threads: int) -> "InferenceSession":
    """Return a session that runs a graph on the processor.

    Args:
        proto: the graph.
        threads: that one call may use.

    Raises:
        UserError: the graph is broken, or has what this ONNX Runtime does not know.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings are of no use to people
    try:
        return onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime raises classes of its own, one a fault
        raise UserError(f"ONNX Runtime cannot load the graph: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
