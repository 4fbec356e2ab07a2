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
    """A graph that can be run from any of its tensors to any others.

    The part of the graph between them is extracted when it is first used, so no other tensors are
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

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors `wanted`, computed from those given.

        Args:
            given: all tensors that those wanted are computed from, floats.
            wanted: names of tensors; given tensors are returned as they are.

        Raises:
            UserError: a tensor has another shape than the graph expects, or the graph cannot be
                run.
        """
        computed = [name for name in dict.fromkeys(wanted) if name not in given]
        found = dict(given)
        if computed:
            session = self._session(tuple(given), tuple(computed))
            # The part need not read all given tensors, such as scales.
            arrays = {
                taken.name: given[taken.name].detach().cpu().float().contiguous().numpy()
                for taken in session.get_inputs()
            }
            try:
                outputs = session.run(computed, arrays)
            except Exception as error:  # ONNX Runtime raises a class of its own per kind of fault
                raise UserError(
                    f"The ONNX graph cannot read this input: {_reason(error)}"
                ) from None
            found |= {name: torch.from_numpy(a) for name, a in zip(computed, outputs, strict=True)}
        return {name: found[name] for name in wanted}

    def _session(self, given: tuple[str, ...], computed: tuple[str, ...]) -> "InferenceSession":
        key = (given, computed)
        if key not in self._sessions:
            self._sessions[key] = session(cut(self.proto, given, computed), self.threads)
        return self._sessions[key]


def cut(proto: "ModelProto", given: Sequence[str], wanted: Sequence[str]) -> "ModelProto":
    """Return the part of a graph between some of its tensors and others.

    Raises:
        UserError: the graph has no such tensors.
    """
    from onnx.utils import Extractor

    try:
        return Extractor(proto).extract_model(list(given), list(wanted))
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
    except Exception as error:  # ONNX Runtime raises a class of its own per kind of fault
        raise UserError(f"ONNX Runtime cannot load the graph: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
