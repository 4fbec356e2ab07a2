"""Training with Lightning: module, batches, trainer and the weights that are kept."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError
from foveal.images import LargeImages
from foveal.models import ImageModel
from foveal.training.batches import Batches
from foveal.training.callbacks import (
    AveragedWeights,
    Curve,
    KeptSignals,
    Progress,
    TimeLeft,
    interruptible,
    loggers,
)
from foveal.training.checkpoint_file import WholeCheckpointIO, read_checkpoint
from foveal.training.checkpoint_form import Form
from foveal.training.checkpoints import LAST, Checkpoints, checkpoint_to_resume
from foveal.training.distribution.devices import is_first_process
from foveal.training.features import FeatureBatches, Features
from foveal.training.objectives.objective import Objective
from foveal.training.objectives.registry import OBJECTIVES
from foveal.training.options import Options
from foveal.training.run_folder import CHECKPOINTS
from foveal.training.sets import Sets
from foveal.training.settings import Recipe


@dataclass(frozen=True)
class KeptEpoch:
    """The epoch whose weights are kept.

    Attributes:
        path: file of its checkpoint.
        epoch: index of the epoch, from 0.
        figures: validation figures by column.
    """

    path: Path
    epoch: int
    figures: dict[str, float]

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the model's weights by name.

        Raises:
            UserError: the checkpoint has been damaged since it was written.
        """
        try:
            state = read_checkpoint(self.path)["state_dict"]
        except UserError as error:
            raise UserError(f"Cannot read {self.path}: {error}.") from error
        prefix = "model."
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def fit(model: ImageModel, recipe: Recipe, sets: Sets, out: Path, options: Options) -> KeptEpoch:
    """Train a model by a recipe, and return the epoch whose weights are kept.

    Raises:
        UserError: no checkpoint in the folder can be used, the devices or the memory are
            insufficient, or the loss is not finite.
    """
    folder = out / CHECKPOINTS
    notify = options.notify if is_first_process() else lambda text: None
    with quiet_lightning(), _as_user_errors(recipe):
        batches, validation = _batches(recipe, sets, lambda: trainer.current_epoch)
        steps = recipe.training.epochs * len(batches)
        module = OBJECTIVES[model.objective](model, recipe, steps, sets)
        module.to(memory_format=torch.channels_last)
        curve = Curve(out / "metrics.csv", module.columns)  # before the checkpoints, which store it
        checkpoints = Checkpoints(
            folder, module.monitor, module.mode, lambda checkpoint: form.check(checkpoint), notify
        )
        others = _other_callbacks(recipe, sets, options)
        trainer = _trainer(module, out, [curve, checkpoints, *others], options)
        form = Form(trainer, module, len(batches))
        start = checkpoint_to_resume(folder, form.check, notify) if options.resume else None
        with interruptible():
            trainer.fit(module, batches, validation, ckpt_path=start, weights_only=True)
    row, path = curve.rows[-1], folder / LAST
    if recipe.training.keep == "best" and checkpoints.best is not None:
        row, path = curve.rows[checkpoints.best.epoch], checkpoints.path(checkpoints.best.epoch)
    elif recipe.training.keep == "best":
        notify("The best epoch is unknown: the weights of the last one are kept.")
    figures = {k: v for k, v in row.items() if k.startswith("val_") and k != "val_loss"}
    return KeptEpoch(path, int(row["epoch"]), figures)


def _other_callbacks(recipe: Recipe, sets: Sets, options: Options) -> list[L.Callback]:
    """Return the callbacks that the recipe and the options require."""
    training = recipe.training
    callbacks: list[L.Callback] = [KeptSignals()]
    if training.average:
        images = _random_images(sets["train"], training.recalibrate)
        callbacks.append(AveragedWeights(training.average, images, training.batch_size))
    if options.time_left is not None:
        callbacks.append(TimeLeft(options.time_left))
    if options.progress:
        callbacks.append(Progress())
    return [*callbacks, *options.callbacks]


def _trainer(
    module: Objective, out: Path, callbacks: list[L.Callback], options: Options
) -> L.Trainer:
    recipe, machines = module.recipe, options.machines
    strategy = machines.strategy
    if recipe.honesty.settle and machines.processes > 1 and strategy != "fsdp":
        strategy = "ddp_find_unused_parameters_true"  # frozen parts get no gradient
    return L.Trainer(
        max_epochs=recipe.training.epochs,
        default_root_dir=out,
        devices=machines.count,
        num_nodes=machines.nodes,
        strategy=strategy,
        precision=options.precision,  # type: ignore[arg-type]
        logger=loggers(out),
        callbacks=callbacks,
        plugins=[WholeCheckpointIO()],
        # With manual optimisation, the module clips gradients itself.
        gradient_clip_val=(recipe.training.clip or None) if module.automatic_optimization else None,
        enable_model_summary=False,
        enable_progress_bar=options.progress,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _batches(recipe: Recipe, sets: Sets, epoch: Callable[[], int]) -> tuple[Batches, Batches]:
    """Return batches for training and for validation; for large images, batches of indices."""
    training, train, val = recipe.training, sets["train"], sets["val"]
    if isinstance(train.images, LargeImages) or isinstance(val.images, LargeImages):
        indices, val_indices = torch.arange(len(train)), torch.arange(len(val))
        batches = Batches(indices, indices, training.batch_size, training.seed, epoch)
        return batches, Batches(val_indices, val_indices, training.batch_size)
    if isinstance(train.images, Features) and isinstance(val.images, Features):
        batches = FeatureBatches(
            train.images, train.labels, training.batch_size, training.seed, epoch
        )
        return batches, FeatureBatches(val.images, val.labels, 1000)
    pixels, masks = train.images, train.masks
    batches = Batches(
        pixels if masks is None else torch.cat([pixels, masks], dim=1),
        train.labels,
        training.batch_size,
        training.seed,
        epoch,
        recipe.augment.alternate,
    )
    return batches, Batches(val.images, val.labels, 1000)


def _random_images(images: ImageSet, count: int) -> torch.Tensor:
    """Return random images (count, C, H, W) for the statistics of batch normalisation."""
    if not count:
        return torch.empty(0)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.images[order[:count]]


@contextmanager
def _as_user_errors(recipe: Recipe) -> Iterator[None]:
    """Raise a UserError if the devices or the memory are insufficient."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise UserError(
            "Out of memory in a training step: use a training.batch_size below "
            f"{recipe.training.batch_size}, smaller images or a smaller model."
        ) from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(sign in str(error) for sign in ("can't allocate memory", "not enough memory"))


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips and hardware notes off the screen."""
    names = (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning",
        "lightning.pytorch.utilities.rank_zero",
    )
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
