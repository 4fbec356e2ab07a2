"""Train a recipe into a run folder."""

import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from foveal.data import ImageSet, LargeSet
from foveal.errors import UserError, unknown_name
from foveal.files import read_yaml
from foveal.memory import keep_freed_memory
from foveal.model_files import DIGEST, WEIGHTS, weights_digest
from foveal.models import (
    AttentionModel,
    HighResFocusNet,
    ImageModel,
    LargeFocusModel,
    PatchReconstructor,
    build_model,
)
from foveal.models.modes import evaluation_mode
from foveal.training.batches import Batches
from foveal.training.distributed import (
    Devices,
    check_batch,
    forget_shared_images,
    is_first_process,
    shared_images,
    synchronise,
)
from foveal.training.first_weights import take_first_weights, whiten
from foveal.training.recipe import Recipe, parse_recipe, write_recipe
from foveal.training.sets import Sets, load_sets, model_settings

if TYPE_CHECKING:
    from lightning import Callback

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
SAID = 5  # files that were left out and are named


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
    callbacks: "Sequence[Callback]" = (),
    say: Callable[[str], None] | None = None,
) -> Path:
    """Train a recipe and write the model, its curves and its card into a run folder.

    Args:
        recipe: model, data and training.
        out: the run folder; it gets config.json, model.safetensors, card.json, recipe.yaml,
            metrics.csv, TensorBoard logs and checkpoints/.
        data: a dataset or folder in place of the recipe's.
        data_dir: where named datasets lie.
        resume: go on from the last checkpoint of the folder, if it has one.
        devices: how many of each machine, as Lightning takes it.
        nodes: machines.
        strategy: `auto`, `ddp` or `fsdp`.
        sync_norm: batch normalisation takes the statistics of all processes' images.
        precision: one of PRECISIONS, as Lightning names them.
        progress: show a progress bar on stderr.
        callbacks: Lightning's, beside those of every run.
        say: told which images were left out, and after the first epoch the time left.

    Returns:
        The run folder.

    Raises:
        UserError: the folder holds a run already and `resume` is not given, the data cannot be
            read, the precision or strategy is unknown, the batch cannot be shared evenly by the
            processes, or the loss is no longer a number.
    """
    machines = Devices(devices, nodes, strategy, sync_norm)
    check_batch(recipe.training.batch_size, machines.processes)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    keep_freed_memory()
    out = _prepare(Path(out), recipe, resume) if is_first_process() else Path(out)
    load = partial(load_sets, recipe, data or recipe.data.name, data_dir)
    sets = shared_images(load, out, machines.processes)
    if say is not None and is_first_process():
        _say_what_was_read(sets.values(), say)
    try:
        return _train(recipe, out, sets, resume, machines, precision, progress, callbacks, say)
    finally:
        forget_shared_images(out)


def _train(
    recipe: Recipe,
    out: Path,
    sets: Sets,
    resume: bool,
    machines: Devices,
    precision: str,
    progress: bool,
    callbacks: "Sequence[Callback]",
    say: Callable[[str], None] | None,
) -> Path:
    import lightning  # noqa: F401  (takes seconds, which are not the training's)

    torch.manual_seed(recipe.training.seed)
    model = build_model(model_settings(recipe, sets["train"]))
    if recipe.data.masks and not isinstance(model, AttentionModel):
        raise UserError("Masks need a model with attention maps to draw to them: 'attention'.")
    if isinstance(sets["train"], ImageSet):
        whiten(model, sets["train"])
    take_first_weights(model, recipe)
    _try_out(model, sets["train"])
    if machines.sync_norm:
        synchronise(model)
    started = time.perf_counter()
    best = _fit(model, recipe, sets, out, resume, machines, precision, progress, callbacks, say)
    seconds = time.perf_counter() - started
    if not is_first_process():
        return out
    # A model of its own: a strategy may have cut up the one that was trained.
    model = build_model(model.settings())
    state = torch.load(best["path"], map_location="cpu", weights_only=True)["state_dict"]
    prefix = "model."
    model.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    model.cpu().eval().save_weights(out)
    card = {
        "model": recipe.name,
        "trained_on": sets["train"].name,
        "train_images": len(sets["train"]),
        "val_images": len(sets["val"]),
        **{name: value for name, value in best.items() if name.startswith("val_")},
        "epoch": best["epoch"],
        "training_seconds": round(seconds, 1),
        "precision": precision,
        DIGEST: weights_digest(out / WEIGHTS),
        "recipe": recipe.to_dict(),
        **versions(),
    }
    write_json(card, out / "card.json")
    return out


def _try_out(model: ImageModel, images: ImageSet | LargeSet) -> None:
    """Check that a model can read images of such a size, before anything is trained.

    Raises:
        UserError: it cannot.
    """
    try:
        with evaluation_mode(model), torch.no_grad():
            if isinstance(images, ImageSet):
                model(images.images[:1].float() / 255)
            elif isinstance(model, LargeFocusModel):
                model.look_into(model.view(images.images, torch.zeros(1, dtype=torch.long)))
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"The model cannot read the images of {images.name}: {reason}") from error


def _say_what_was_read(sets: Iterable[ImageSet | LargeSet], say: Callable[[str], None]) -> None:
    """Say what a folder was taken for; name the first files left out, and count the others."""
    sets = list(sets)
    for note in dict.fromkeys(note for images in sets for note in images.notes):
        say(f"  {note}")
    problems = {problem.path: problem.reason for images in sets for problem in images.problems}
    for path, reason in list(problems.items())[:SAID]:
        say(f"  warning: left out {path}: {reason}")
    if len(problems) > SAID:
        say(f"  warning: and {len(problems) - SAID} others")


def versions() -> dict[str, Any]:
    """Return what a card says of the machine and the versions that made it."""
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


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write plain values as JSON, atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _prepare(out: Path, recipe: Recipe, resume: bool) -> Path:
    """Make the run folder, and refuse one that holds another run."""
    kept = out / "recipe.yaml"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not resume and (kept.exists() or (out / "checkpoints").exists()):
            raise UserError(f"{out} holds a run already: give --resume or another --out.")
        if resume and kept.exists() and parse_recipe(read_yaml(kept)) != recipe:
            raise UserError(
                f"{out} was started with other settings, see {kept}: resume with those."
            )
        write_recipe(recipe, kept)
    except OSError as error:
        raise UserError(f"Cannot write to {out}: {error.strerror or error}.") from None
    return out


def _fit(
    model: ImageModel,
    recipe: Recipe,
    sets: Sets,
    out: Path,
    resume: bool,
    machines: Devices,
    precision: str,
    progress: bool,
    beside: "Sequence[Callback]",
    say: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Run Lightning; return path, epoch and validation figures of the weights to keep."""
    import lightning as L

    from foveal.training.callbacks import AveragedWeights, loggers, run_callbacks
    from foveal.training.large import LargeModule
    from foveal.training.module import ClassifierModule, RecipeModule
    from foveal.training.reconstruction import ReconstructionModule

    with quiet_lightning():
        training = recipe.training
        batches, validation = _batches(recipe, sets, lambda: trainer.current_epoch)
        steps = training.epochs * len(batches)
        module: RecipeModule
        if isinstance(model, HighResFocusNet):
            large = {name: part for name, part in sets.items() if isinstance(part, LargeSet)}
            module = LargeModule(model, recipe, steps, large)
        elif isinstance(model, PatchReconstructor):
            module = ReconstructionModule(model, recipe, steps)
        else:
            module = ClassifierModule(model, recipe, steps)
        if isinstance(module, ClassifierModule) and training.balance:
            module.weigh(batches.labels)
        module = module.to(memory_format=torch.channels_last)
        average = None
        if training.average:
            few = _few(sets["train"], training.recalibrate)
            average = AveragedWeights(training.average, few, training.batch_size)
        callbacks, best, curve = run_callbacks(out, module, progress, average, say)
        strategy = machines.strategy
        if recipe.honesty.settle and machines.processes > 1 and strategy != "fsdp":
            strategy = "ddp_find_unused_parameters_true"  # what has settled learns no more
        trainer = L.Trainer(
            max_epochs=training.epochs,
            devices=machines.count,
            num_nodes=machines.nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
            logger=loggers(out),
            callbacks=[*callbacks, *beside],
            # What steps by hand clips by hand.
            gradient_clip_val=(training.clip or None) if module.automatic_optimization else None,
            enable_model_summary=False,
            enable_progress_bar=progress,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        last = out / "checkpoints" / "last.ckpt"
        ckpt = str(last) if resume and last.exists() else None
        trainer.fit(module, batches, validation, ckpt_path=ckpt, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    path = best.best_model_path if training.keep == "best" else str(last)
    row = curve.row_of(path, training.keep)
    figures = {k: v for k, v in row.items() if k.startswith("val_") and k != "val_loss"}
    return {"path": path, "epoch": int(row["epoch"]), **figures}


def _batches(recipe: Recipe, sets: Sets, epoch: Callable[[], int]) -> tuple[Batches, Batches]:
    """Return what a training runs over and what validates it; of large images, their numbers."""
    training, train, val = recipe.training, sets["train"], sets["val"]
    if isinstance(train, LargeSet) or isinstance(val, LargeSet):
        numbers, others = torch.arange(len(train)), torch.arange(len(val))
        found = Batches(numbers, numbers, training.batch_size, training.seed, epoch)
        return found, Batches(others, others, training.batch_size)
    pixels, masks = train.images, train.masks
    found = Batches(
        pixels if masks is None else torch.cat([pixels, masks], dim=1),
        train.labels,
        training.batch_size,
        training.seed,
        epoch,
        recipe.augment.alternate,
    )
    return found, Batches(val.images, val.labels, 1000)


def _few(images: ImageSet | LargeSet, count: int) -> torch.Tensor:
    """Return some images (count, C, H, W) to measure batch normalisation's statistics on."""
    if isinstance(images, LargeSet):
        return torch.empty(0)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.images[order[:count]]


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
