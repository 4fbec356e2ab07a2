"""Metadata of an exported ONNX graph, from which Foveal can build a model around the graph."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING

from foveal.foundation.errors import UserError, check_arguments
from foveal.foundation.files import parse_json
from foveal.models.inputs import Inputs

if TYPE_CHECKING:
    from onnx import ModelProto

KEY = "foveal"  # key in the graph's metadata; the value is JSON


@dataclass(frozen=True)
class About:
    """Metadata of a graph, which describe the model that it was exported from.

    Attributes:
        in_channels: channels C of the images.
        num_classes: number of classes; 0 if the model is not a classifier.
        inputs: the images that the model expects; the graph normalises them itself.
        config: the model's settings, as in config.json.
        names: names of tensors in the graph, by part of the explanation (such as `keypoints`) or
            split point (see `split_points`).
        parameters: number of learned parameters.
        macs: multiply-adds per image of the graph's size; 0 if the graph accepts any size.
        beside: SHA-256 checksums of the additional files of the export, by part.
    """

    in_channels: int
    num_classes: int
    inputs: Inputs
    config: Mapping[str, object]
    names: Mapping[str, str]
    parameters: int
    macs: int
    beside: Mapping[str, str] = field(default_factory=dict)


def write_about(proto: "ModelProto", about: About) -> None:
    """Write metadata into a graph, replacing its previous metadata."""
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(asdict(about))


def read_about(proto: "ModelProto") -> About:
    """Return the metadata of a graph.

    Raises:
        UserError: the graph was not written by Foveal, or its metadata are damaged.
    """
    text = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    if text is None:
        raise UserError("This ONNX file was not written by `foveal export`.")
    try:
        metadata = parse_json(text)
        check_arguments("metadata object", About, metadata)
        # The graph normalises the images, so the model around it must not.
        inputs = replace(Inputs.from_settings(metadata["inputs"]), mean=(), std=())
        about = About(**{**metadata, "inputs": inputs})
        _check(about)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"The ONNX file's metadata are damaged: {reason}") from None
    return about


def _check(about: About) -> None:
    """Check the types of metadata, which come from a file and may be anything.

    Raises:
        ValueError: a value has the wrong type.
    """
    for attribute in fields(about):
        value = getattr(about, attribute.name)
        if attribute.type is int and (not isinstance(value, int) or value < 0):
            raise ValueError(f"{attribute.name} is {value!r}")
    if not isinstance(about.config, Mapping):
        raise ValueError("config is not a mapping")
    for texts in (about.names, about.beside):
        if not all(isinstance(name, str) and isinstance(text, str) for name, text in texts.items()):
            raise ValueError("names or digests are not strings")
