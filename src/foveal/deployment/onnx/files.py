"""Files of an ONNX export: one for the main graph, and one next to it for each additional graph."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from foveal.deployment.onnx.about import read_about
from foveal.foundation.errors import UserError, missing_extra
from foveal.foundation.files import write_bytes

if TYPE_CHECKING:
    from onnx import ModelProto


class Exported(NamedTuple):
    """The graphs of an exported model: the main graph, and the graphs in the files beside its file.

    Attributes:
        graph: the main graph, whose metadata describe the model.
        beside: the additional graphs by part, which is the name of a graph such as `patches`. Only
            a high-resolution model has additional graphs.
    """

    graph: "ModelProto"
    beside: Mapping[str, "ModelProto"] = {}


def write_onnx(proto: "ModelProto", path: Path, beside: Mapping[str, "ModelProto"] = {}) -> None:
    """Write a graph to a file, and additional graphs to files next to it.

    If `path` is `model.onnx`, the additional graph `patches` is written to `model-patches.onnx`.
    Each file is written atomically. The main file is written last, because it holds the checksums
    of the others, so that reading recognises an interrupted export.

    Args:
        proto: the main graph.
        path: path of the main file; its folder is created if missing.
        beside: additional graphs by part, see `large_graphs`.

    Raises:
        UserError: a file cannot be written.
    """
    files = {beside_path(path, part): graph for part, graph in beside.items()} | {path: proto}
    for target, graph in files.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, graph.SerializeToString())
        except OSError as error:
            raise UserError(f"Cannot write {target}: {error.strerror or error}.") from None


def read_onnx(path: Path) -> Exported:
    """Return the graphs of an export.

    Args:
        path: path of the main file.

    Raises:
        UserError: a file is missing, damaged, was not written by Foveal, or belongs to a different
            export than the main file.
    """
    graph = _parse_graph(_read_bytes(path), path)
    try:
        about = read_about(graph)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    beside = {}
    for part, checksum in about.beside.items():
        # The path is derived from the user's path, because a path in the metadata could be any.
        file = beside_path(path, _valid_part(part, path))
        content = _read_bytes(file)
        if hashlib.sha256(content).hexdigest() != checksum:
            raise UserError(
                f"{file} comes from a different export than {path.name}: export the model again."
            )
        beside[part] = _parse_graph(content, file)
    return Exported(graph, beside)


def digest(proto: "ModelProto") -> str:
    """Return the SHA-256 of a graph's file."""
    return hashlib.sha256(proto.SerializeToString()).hexdigest()


def beside_path(path: Path, part: str) -> Path:
    """Return the path of a part's file, next to the main file `path`."""
    return path.with_name(f"{path.stem}-{part}{path.suffix}")


def _valid_part(part: str, path: Path) -> str:
    """Return the name of a part, if it consists of letters and so cannot lead to another folder."""
    if not (part.isascii() and part.isalpha()):
        raise UserError(
            f"{path}: The ONNX file's metadata are damaged: a part is named {part[:40]!r}."
        )
    return part


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None


def _parse_graph(content: bytes, path: Path) -> "ModelProto":
    """Return the graph in the content of a file; the path is only for errors."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise missing_extra("onnx", "onnx") from None
    try:
        # This function does not read external data, whose paths could point to any file.
        graph = onnx.load_model_from_string(content)
    except DecodeError:
        raise UserError(f"{path} is not an ONNX file, or is damaged.") from None
    _check_finite(graph, path)
    return graph


def _check_finite(graph: "ModelProto", path: Path) -> None:
    """Raise a UserError if weights are damaged, external, NaN or infinite."""
    import numpy as np
    from onnx.numpy_helper import to_array

    for tensor in graph.graph.initializer:
        if tensor.external_data:
            raise UserError(f"{path}: the weights {tensor.name!r} are stored outside of the file.")
        try:
            values = to_array(tensor)
        except Exception as error:  # onnx raises almost anything on broken tensors
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: the weights {tensor.name!r} are damaged: {reason}") from None
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UserError(f"{path}: the weights {tensor.name!r} have NaN or infinite values.")
