"""Training with Lightning: the module, its batches, the trainer, and the weights that are kept."""

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
    Progress,
    RestoreSigterm,
    TimeLeft,
    interruptible,
    loggers,
)
from foveal.training.checkpoint_file import AtomicCheckpointIO, read_checkpoint
from foveal.training.checkpoint_form import CheckpointForm
from foveal.training.checkpoints import LAST, Checkpoints, checkpoint_to_resume
from foveal.training.distribution.devices import is_first_process
from foveal.training.features import FeatureBatches, Features
from foveal.training.objectives.objective import Objective
from foveal.training.objectives.registry import OBJECTIVES
from foveal.training.options import Options
from foveal.training.run_folder import CHECKPOINTS
from foveal.training.sets import Sets
from foveal.training.settings import Recipe

_VALIDATION_BATCH = 1000  # maximum number of images per batch in validation


@dataclass(frozen=True)
class KeptEpoch:
    """The epoch whose weights are kept: the best one or the last one.

    Attributes:
        path: file of the epoch's checkpoint.
        epoch: index of the epoch, from 0.
        figures: the epoch's validation metrics, by column of metrics.csv.
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

    The model is trained in place; the kept weights are in a checkpoint, not in the model.

    Args:
        model: the model before training.
        recipe: settings of the training run.
        sets: `train`, `val` and, for large images, possibly `first`; images or features.
        out: the run folder, in which checkpoints and metrics.csv are written.
        options: options of the run.

    Raises:
        UserError: no checkpoint in the folder can be used, the devices or the memory are
            insufficient, or the loss is not finite.
    """
    folder = out / CHECKPOINTS
    warn = options.warn if is_first_process() else lambda line: None
    with quiet_lightning(), _as_user_errors(recipe):
        # The two lambdas are called only by `trainer.fit`, when `trainer` and `form` exist.
        batches, validation = _make_batches(recipe, sets, lambda: trainer.current_epoch)
        steps = recipe.training.epochs * len(batches)
        module = OBJECTIVES[model.objective](model, recipe, steps, sets)
        module.to(memory_format=torch.channels_last)
        curve = Curve(out / "metrics.csv", module.columns)
        checkpoints = Checkpoints(
            folder, module.monitor, module.mode, lambda checkpoint: form.check(checkpoint), warn
        )
        # The curve is first, because checkpoints store its rows, with that of the last epoch.
        callbacks = [curve, checkpoints, *_other_callbacks(recipe, sets, options)]
        trainer = _make_trainer(module, out, callbacks, options)
        form = CheckpointForm(trainer, module, len(batches))
        resume_path = checkpoint_to_resume(folder, form.check, warn) if options.resume else None
        with interruptible():
            trainer.fit(module, batches, validation, ckpt_path=resume_path, weights_only=True)
    if recipe.training.keep == "best" and checkpoints.best is None:
        warn("The best epoch is unknown: the weights of the last one are kept.")
    return _kept_epoch(curve, checkpoints, recipe.training.keep)


def _kept_epoch(curve: Curve, checkpoints: Checkpoints, keep: str) -> KeptEpoch:
    """Return the best epoch if it is known and `keep` is `best`, else the last one."""
    row = curve.rows[-1]
    path = checkpoints.folder / LAST
    if keep == "best" and checkpoints.best is not None:
        row = curve.rows[checkpoints.best.epoch]
        path = checkpoints.path(checkpoints.best.epoch)
    figures = {
        column: value
        for column, value in row.items()
        if column.startswith("val_") and column != "val_loss"
    }
    return KeptEpoch(path, int(row["epoch"]), figures)


def _other_callbacks(recipe: Recipe, sets: Sets, options: Options) -> list[L.Callback]:
    """Return the callbacks that the recipe and the options require in addition to the main two."""
    training = recipe.training
    callbacks: list[L.Callback] = [RestoreSigterm()]
    if training.average:
        images = _random_images(sets["train"], training.recalibrate)
        callbacks.append(AveragedWeights(training.average, images, training.batch_size))
    if options.notify is not None:
        callbacks.append(TimeLeft(options.notify))
    if options.progress:
        callbacks.append(Progress())
    return [*callbacks, *options.callbacks]


def _make_trainer(
    module: Objective, out: Path, callbacks: list[L.Callback], options: Options
) -> L.Trainer:
    """Return the Lightning trainer of a run."""
    recipe, devices = module.recipe, options.devices
    strategy = devices.strategy
    if recipe.honesty.settle and devices.processes > 1 and strategy != "fsdp":
        # With `honesty.settle`, the detector is frozen at the end of training. DDP must then look
        # for parameters without a gradient, or it would wait for their gradients.
        strategy = "ddp_find_unused_parameters_true"
    max_norm = None  # without automatic optimisation, the module clips gradients itself
    if module.automatic_optimization and recipe.training.clip > 0:
        max_norm = recipe.training.clip
    return L.Trainer(
        max_epochs=recipe.training.epochs,
        default_root_dir=out,
        devices=devices.count,
        num_nodes=devices.nodes,
        strategy=strategy,
        precision=options.precision,  # type: ignore[arg-type]
        logger=loggers(out),
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        gradient_clip_val=max_norm,
        enable_model_summary=False,
        enable_progress_bar=options.progress,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # `Batches` divides batches among processes itself
    )


def _make_batches(
    recipe: Recipe, sets: Sets, get_epoch: Callable[[], int]
) -> tuple[Batches, Batches]:
    """Return batches for training and for validation.

    Large images stay in their files, so their batches hold indices; the objective reads the images.
    Masks, if there are any, follow the images as a last channel.
    """
    training, train, val = recipe.training, sets["train"], sets["val"]
    if isinstance(train.images, LargeImages) or isinstance(val.images, LargeImages):
        indices, val_indices = torch.arange(len(train)), torch.arange(len(val))
        # The indices take the place of both the images and the labels.
        batches = Batches(indices, indices, training.batch_size, training.seed, get_epoch)
        return batches, Batches(val_indices, val_indices, training.batch_size)
    if isinstance(train.images, Features) and isinstance(val.images, Features):
        batches = FeatureBatches(
            train.images, train.labels, training.batch_size, training.seed, get_epoch
        )
        return batches, FeatureBatches(val.images, val.labels, _VALIDATION_BATCH)
    pixels, masks = train.images, train.masks
    batches = Batches(
        pixels if masks is None else torch.cat([pixels, masks], dim=1),  # (N, C + 1, H, W)
        train.labels,
        training.batch_size,
        training.seed,
        get_epoch,
        recipe.augment.alternate,
    )
    return batches, Batches(val.images, val.labels, _VALIDATION_BATCH)


def _random_images(images: ImageSet, count: int) -> torch.Tensor:
    """Return at most `count` random images (M, C, H, W) to measure batch-normalisation statistics.

    With a count of 0, the result is an empty tensor.
    """
    if not count:
        return torch.empty(0)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.images[order[:count]]


@contextmanager
def _as_user_errors(recipe: Recipe) -> Iterator[None]:
    """Raise Lightning's errors about devices, and errors about memory, as a UserError."""
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
    """Return whether an error means that a GPU or the machine has too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(phrase in str(error) for phrase in ("can't allocate memory", "not enough memory"))


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's warnings, tips and notes on the hardware while the block runs."""
    names = (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning",
        "lightning.pytorch.utilities.rank_zero",
    )
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        # PyTorch warns that `LeafSpec`, which Lightning uses, is deprecated.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
