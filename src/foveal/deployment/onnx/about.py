"""What an exported graph says of itself in its metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING

from foveal.foundation.errors import UserError, check_arguments
from foveal.foundation.files import parse_json
from foveal.models.inputs import Inputs

if TYPE_CHECKING:
    from onnx import ModelProto

KEY = "foveal"  # of the metadata; its value is JSON


@dataclass(frozen=True)
class About:
    """What a graph says of the model that it was made of.

    Attributes:
        in_channels: channels C of the images.
        num_classes: number of classes; 0 of a model that names none.
        inputs: what images the model expects; the graph normalises them by itself.
        config: the model's settings, as config.json keeps them.
        names: for each tensor of an explanation, and each seam, its name in the graph.
        parameters: numbers that were learned.
        macs: multiply-adds for one image of the graph's size; 0 where that is any.
        beside: of each other graph of the export, by its part, the SHA-256 of its file.
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
    """Put it into a graph's metadata, in the place of what the graph said before."""
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(asdict(about))


def read_about(proto: "ModelProto") -> About:
    """Return what a graph says of itself.

    Raises:
        UserError: it was not written by Foveal, or is damaged.
    """
    values = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    if values is None:
        raise UserError("This ONNX file was not written by `foveal export`.")
    try:
        found = parse_json(values)
        check_arguments("metadata", About, found)
        # The graph normalises, so the model around it must not.
        inputs = replace(Inputs.from_settings(found["inputs"]), mean=(), std=())
        about = About(**{**found, "inputs": inputs})
        _check(about)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"The ONNX file's metadata are damaged: {reason}") from None
    return about


def _check(about: About) -> None:
    for kept in fields(about):
        value = getattr(about, kept.name)
        if kept.type is int and (not isinstance(value, int) or value < 0):
            raise ValueError(f"{kept.name} is {value!r}")
    if not isinstance(about.config, Mapping):
        raise ValueError("settings are no pairs")
    for named in (about.names, about.beside):
        if not all(isinstance(name, str) and isinstance(text, str) for name, text in named.items()):
            raise ValueError("names are not text")
