"""Training runs: a model is trained from a recipe, and written to a run folder with its card.

A card describes a trained model: its data, its results and how it was trained.
"""

import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from foveal.datasets import ImageSet
from foveal.datasets.images import problem_lines
from foveal.foundation.errors import UserError
from foveal.foundation.memory import keep_freed_memory
from foveal.foundation.model_files import DIGEST, WEIGHTS, weights_digest, write_card
from foveal.foundation.modes import evaluation_mode
from foveal.images.values import as_floats
from foveal.models import ImageModel, build_model
from foveal.models.abilities import Ability
from foveal.training.distribution.devices import Devices, check_batch, is_first_process
from foveal.training.distribution.shared_images import delete_shared_images, load_shared
from foveal.training.distribution.synced_norm import synchronise
from foveal.training.initial_model import initial_model, start_on_features
from foveal.training.options import Options
from foveal.training.pretrained import weights_origin, with_available_backbone
from foveal.training.run_folder import FEATURES, run_folder
from foveal.training.sets import Sets, load_sets, model_settings
from foveal.training.settings import Recipe

if TYPE_CHECKING:
    from lightning import Callback

    from foveal.training.fitting import KeptEpoch


class TrainOptions(TypedDict, total=False):
    """Arguments of `train` that control where and how a run is computed, not what is trained.

    They are the options of the command line; `train` builds its `Options` from them.

    Attributes:
        data_dir: folder of named datasets.
        resume: whether to continue from the last checkpoint in the run folder, if there is one.
            If false, a folder that holds a run is refused.
        devices: number of devices per machine, in any form that Lightning accepts. There is one
            process per device, and the batch size must be a multiple of their number.
        nodes: number of machines.
        strategy: `auto`, `ddp` or `fsdp`.
        sync_norm: whether batch normalisation uses the statistics of all processes' images.
        precision: `32-true`, `bf16-mixed` or `16-mixed`, which are Lightning's names.
        progress: whether to show a progress bar on stderr.
    """

    data_dir: str | Path | None
    resume: bool
    devices: str | int
    nodes: int
    strategy: str
    sync_norm: bool
    precision: str
    progress: bool


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    resume: bool = False,
    devices: str | int = "auto",
    nodes: int = 1,
    strategy: str = "auto",
    sync_norm: bool = False,
    precision: str = "32-true",
    progress: bool = True,
    keep_features: bool = False,
    callbacks: "Sequence[Callback]" = (),
    notify: Callable[[str], None] | None = None,
) -> Path:
    """Train a model from a recipe, and return the run folder in which it is written.

    All arguments that are not listed here are described in `TrainOptions`.

    Args:
        recipe: settings of the model, the data and the training.
        out: the run folder; config.json, model.safetensors, card.json, recipe.yaml, metrics.csv,
            TensorBoard logs and checkpoints/ are written to it.
        data: a dataset or folder to use instead of the recipe's.
        keep_features: whether to keep the folder of features that `training.cache` creates.
        callbacks: Lightning callbacks in addition to the built-in ones.
        notify: called with lines about skipped images, unusable checkpoints, and the remaining
            time after the first epoch. Without it, unusable checkpoints cause warnings.

    Raises:
        UserError: an argument, the data, the run folder or its checkpoints cannot be used, the
            devices or the memory are insufficient, or the loss is not finite.
        KeyboardInterrupt: the user pressed Ctrl-C. The checkpoint of the last complete epoch stays
            in the run folder, so that `resume` can continue from it.
    """
    options = Options(
        resume=resume,
        devices=Devices(devices, nodes, strategy, sync_norm),
        precision=precision,
        progress=progress,
        callbacks=callbacks,
        notify=notify,
        warn=notify or partial(warnings.warn, stacklevel=2),
    )
    check_batch(recipe.training.batch_size, options.devices.processes)
    keep_freed_memory()  # makes training on a CPU faster
    run = _Run(recipe, Path(out), data or recipe.data.name, data_dir, options)
    run.train()
    if is_first_process() and not keep_features:
        shutil.rmtree(run.out / FEATURES, ignore_errors=True)
    return run.out


@dataclass(frozen=True)
class _Run:
    """A training run.

    Attributes:
        recipe: the recipe.
        out: the run folder.
        source: name of the dataset, or the folder of images.
        data_dir: folder of named datasets.
        options: options of the run.
    """

    recipe: Recipe
    out: Path
    source: str
    data_dir: str | Path | None
    options: Options

    def train(self) -> None:
        """Load the images and train on them, with the run folder locked."""
        load = partial(load_sets, self.recipe, self.source, self.data_dir)
        options = self.options
        lock: AbstractContextManager[None] = nullcontext()
        if is_first_process():
            lock = run_folder(self.out, self.recipe, options.resume, options.warn)
        with lock:
            try:
                sets = load_shared(load, self.out, options.devices.processes)
                if options.notify is not None and is_first_process():
                    _report_data(sets.values(), options.notify)
                self._fit(sets)
            finally:
                delete_shared_images(self.out)

    def _fit(self, sets: Sets) -> None:
        """Train on image sets, and write the model and its card."""
        from foveal.training.fitting import fit  # imports Lightning, which takes seconds

        options = self.options
        recipe = with_available_backbone(self.recipe, options.warn)
        model = initial_model(recipe, model_settings(recipe, sets["train"]), sets["train"])
        if recipe.data.masks and Ability.GIVEN_MAPS not in model.abilities:
            raise UserError("data.masks requires a model with attention maps, such as 'attention'.")
        _check_readable(model, sets["train"])
        if options.devices.sync_norm:
            synchronise(model)
        start_time = time.perf_counter()
        if recipe.training.cache:
            sets = self._with_features(model, recipe, sets)
            start_on_features(model, recipe, sets, options.notify)
        kept = fit(model, recipe, sets, self.out, options)
        seconds = time.perf_counter() - start_time
        if is_first_process():
            _write_model(model, kept, self.out)
            write_card(self.out, self._card(recipe, sets, kept, seconds))

    def _with_features(self, model: ImageModel, recipe: Recipe, sets: Sets) -> Sets:
        """Return the image sets with features of the frozen backbone in place of their images."""
        from foveal.training.feature_files import with_features

        options = self.options
        if options.devices.processes > 1:
            raise UserError(
                "training.cache requires a single process: use --devices 1, or cache=false."
            )
        folder = self.out / FEATURES
        return with_features(
            model, recipe, sets, folder, progress=options.progress, notify=options.warn
        )

    def _card(
        self, recipe: Recipe, sets: Sets, kept: "KeptEpoch", seconds: float
    ) -> dict[str, object]:
        """Return the card of the trained model, as plain values."""
        origin = weights_origin(recipe.model)
        return {
            "model": recipe.name,
            "trained_on": sets["train"].name,
            "train_images": len(sets["train"]),
            "val_images": len(sets["val"]),
            **kept.figures,
            "epoch": kept.epoch,
            "training_seconds": round(seconds, 1),
            "precision": self.options.precision,
            DIGEST: weights_digest(self.out / WEIGHTS),
            **({} if origin is None else {"backbone_weights": origin}),
            "recipe": recipe.to_dict(),
            **versions(),
        }


def _write_model(trained: ImageModel, kept: "KeptEpoch", out: Path) -> None:
    """Write a model with the kept weights and the settings of the trained one to a run folder."""
    # It is a new model, because a strategy such as FSDP has split the trained one among processes.
    model = build_model(trained.settings())
    model.load_state_dict(kept.weights())
    model.cpu().eval().save_weights(out)


def _check_readable(model: ImageModel, images: ImageSet[Any]) -> None:
    """Check that a model can read the first of its training images, before training starts.

    Raises:
        UserError: the model cannot read it, for instance because it is too small.
    """
    try:
        with evaluation_mode(model), torch.no_grad():
            if Ability.IN_PART in model.abilities:
                model.observe(model.view(images.images, torch.zeros(1, dtype=torch.long)))
            else:
                model(as_floats(next(iter(images.images.split(1)))))
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"The model cannot read the images of {images.name}: {reason}") from error


def _report_data(sets: Iterable[ImageSet[object]], notify: Callable[[str], None]) -> None:
    """Report how a folder of images was interpreted, and which files were skipped.

    `notify` is called with a line per note on the folder and a line per skipped file; after the
    first few files, only the number of the others is reported.
    """
    sets = list(sets)
    for note in dict.fromkeys(note for images in sets for note in images.notes):
        notify(f"  {note}")
    for line in problem_lines(problem for images in sets for problem in images.problems):
        notify(f"  warning: {line}")


def versions() -> dict[str, object]:
    """Return the software versions and the name of the device, as entries of the card."""
    import lightning

    from foveal import __version__

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "versions": {
            "foveal": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "lightning": lightning.__version__,
        },
        "device": device,
    }
