"""The zoo: the trained models that are included in the package.

A model of the zoo is loaded by its name. Models in a run folder, which training writes, and on the
Hugging Face Hub are loaded in the same way.
"""

import csv
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.files import read_json
from foveal.foundation.model_files import CONFIG, WEIGHTS, read_card, read_config, read_settings

if TYPE_CHECKING:
    from foveal.models import ImageModel

_FILES = (CONFIG, WEIGHTS)


def names() -> list[str]:
    """Return the names of the models whose weights are included in the package."""
    return sorted(path.name for path in _weights_folder().iterdir() if (path / WEIGHTS).is_file())


def judge_of(data: str) -> str | None:
    """Return the name of the zoo's judge for images of a dataset, or None if there is none.

    A judge is a classifier that was trained independently of the models that it judges, to measure
    how much evidence a region of an image contains.

    Args:
        data: name of the dataset. `mnist-5k` is part of MNIST and shares its judge, as do CIFAR-10
            and its JPEG copy `cifar10-jpeg`.
    """
    name = data.removesuffix("-5k").removesuffix("-jpeg") + "-judge"
    return name if name in names() else None


def load(model: str | Path) -> "ImageModel":
    """Return a trained model, in evaluation mode, on the CPU.

    Args:
        model: a zoo name, a run folder, or `OWNER/NAME` on the Hugging Face Hub.

    Raises:
        UserError: the model is unknown, or its weights are corrupt or belong to another model.
    """
    from foveal.models import build_model
    from foveal.models.renames import rename_function
    from foveal.models.weights import Weights, load_weights

    folder = _model_folder(model)
    config = read_config(folder / CONFIG)
    weights = Weights(folder / WEIGHTS)
    weights.rename(rename_function(str(config.settings["name"])))
    return load_weights(lambda: build_model(config.settings), weights)


def settings(model: str | Path) -> dict[str, object]:
    """Return the settings that a trained model is built from, as stored in its config.json."""
    return read_settings(_model_folder(model) / CONFIG)


def card(model: str | Path) -> dict[str, Any]:
    """Return the card of a trained model (recipe, versions, figures), empty if it has none.

    Raises:
        UserError: the card cannot be read or is invalid.
    """
    return read_card(_model_folder(model))


def columns() -> list[Column]:
    """Return the columns of the figures on the zoo's cards, in the order of tables.

    They are generated from the metrics (`tools/figures.py`) and stored in a file, because listing
    the zoo must not import PyTorch.
    """
    file = resources.files(__name__) / "columns.json"
    with resources.as_file(file) as path:
        return [Column(**column) for column in read_json(path)]


def curve(model: str | Path) -> dict[str, list[float]] | None:
    """Return a model's training curves, or None if there are none.

    They are the columns of metrics.csv by name, with one number per epoch.

    Raises:
        UserError: the file is not a table of numbers.
    """
    path = _model_folder(model) / "metrics.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else None
    except (TypeError, ValueError):
        raise UserError(f"{path} is not a table of numbers.") from None


def folder(model: str | Path) -> Path:
    """Return the folder of a model's config, weights and card."""
    return _model_folder(model)


def _weights_folder() -> Path:
    return Path(str(resources.files("foveal.zoo"))) / "weights"


def _model_folder(model: str | Path) -> Path:
    """Return the folder of a model; one on the Hub is downloaded first.

    Raises:
        UserError: there is no such model, or its folder lacks a file.
    """
    name = str(model)
    if name in names():
        return _weights_folder() / name
    path = Path(name)
    if path.is_dir():
        missing = [file for file in _FILES if not (path / file).is_file()]
        if missing:
            raise UserError(f"{path} has no trained model: {' and '.join(missing)} missing.")
        return path
    owner, slash, repository = name.partition("/")
    if slash and owner and repository and "/" not in repository and owner not in (".", ".."):
        if Path(owner).is_dir():  # more likely a folder such as runs/ than a Hub owner
            raise UserError(f"The folder {name} does not exist.")
        return _download(name)
    advice = "Give a model's folder, or a name that `foveal models` lists."
    raise unknown_name("model", name, names(), advice)


def _download(name: str) -> Path:
    """Download a model from the Hugging Face Hub and return its folder.

    Args:
        name: `OWNER/NAME`.

    Raises:
        UserError: the model cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    try:
        paths = [Path(hf_hub_download(name, file)) for file in _FILES]
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"The folder {name} does not exist, and the Hub does not provide it: {reason}"
        ) from None
    return paths[0].parent
