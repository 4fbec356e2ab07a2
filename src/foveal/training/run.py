"""Train a recipe into a run folder."""

import inspect
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foveal.backbones import BACKBONES, WhiteningConv
from foveal.data import ImageSet, load_images, with_masks
from foveal.detectors import DETECTORS
from foveal.errors import UserError, unknown_name
from foveal.memory import keep_freed_memory
from foveal.models import (
    MODELS,
    AttentionModel,
    ImageModel,
    PatchReconstructor,
    build_model,
)
from foveal.models.decoders import DECODERS
from foveal.training.batches import Batches
from foveal.training.recipe import Recipe, parse_recipe, write_recipe

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
    precision: str = "32-true",
    progress: bool = True,
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
        devices: how many, as Lightning takes it.
        precision: one of PRECISIONS, as Lightning names them.
        progress: show a progress bar on stderr.
        say: told which images were left out, and after the first epoch the time left.

    Returns:
        The run folder.

    Raises:
        UserError: the folder holds a run already and `resume` is not given, the data cannot be
            read, the precision is unknown, or the loss is no longer a number.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    keep_freed_memory()
    out = _prepare(Path(out), recipe, resume) if is_first_process() else Path(out)
    source = data or recipe.data.name
    sets = {
        split: load_images(
            source, split, size=recipe.data.size, channels=recipe.data.channels, data_dir=data_dir
        )
        for split in ("train", "val")
    }
    if say is not None and is_first_process():
        _say_problems(sets.values(), say)
    # Masks that a dataset brings along are a truth to measure by, not to train with.
    sets = {split: replace(images, masks=None) for split, images in sets.items()}
    if recipe.data.limit:
        sets["train"] = sets["train"].few(recipe.data.limit, recipe.data.draw)
    if recipe.data.masks:
        sets["train"] = with_masks(sets["train"], source, recipe.data.masks)
    import lightning  # noqa: F401  (takes seconds, which are not the training's)

    torch.manual_seed(recipe.training.seed)
    model = build_model(model_settings(recipe, sets["train"]))
    if recipe.data.masks and not isinstance(model, AttentionModel):
        raise UserError("Masks need a model with attention maps to draw to them: 'attention'.")
    _whiten(model, sets["train"])
    _start(model, recipe)
    started = time.perf_counter()
    best = _fit(model, recipe, sets, out, resume, devices, precision, progress, say)
    seconds = time.perf_counter() - started
    if not is_first_process():
        return out
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
        "recipe": recipe.to_dict(),
        **versions(),
    }
    write_json(card, out / "card.json")
    return out


def _say_problems(sets: Iterable[ImageSet], say: Callable[[str], None]) -> None:
    """Name the first files that were left out, each once, and count the others."""
    problems = {problem.path: problem.reason for images in sets for problem in images.problems}
    for path, reason in list(problems.items())[:SAID]:
        say(f"  warning: left out {path}: {reason}")
    if len(problems) > SAID:
        say(f"  warning: and {len(problems) - SAID} others")


def is_first_process() -> bool:
    """Return whether this process writes the run; Lightning starts the same command for others."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def model_settings(recipe: Recipe, images: ImageSet) -> dict[str, Any]:
    """Return the recipe's model settings, completed by what the images are."""
    channels = images.images.shape[1]
    sample = images.images[:: max(1, len(images) // 10_000)].float() / 255
    rebuilds = recipe.model.get("name") == PatchReconstructor.name
    settings = {
        **({} if rebuilds else {"num_classes": len(images.classes)}),
        "inputs": {
            "size": list(images.images.shape[-2:]),
            "mean": [round(float(v), 4) for v in sample.mean(dim=(0, 2, 3))],
            "std": [round(max(float(v), 1e-3), 4) for v in sample.std(dim=(0, 2, 3))],
            "classes": [] if rebuilds else list(images.classes),
        },
        **recipe.model,
    }
    # What sees the image is told its channels, where the recipe has not.
    parts: dict[str, Mapping[str, Any]] = {"backbone": BACKBONES, "detector": DETECTORS}
    given: dict[str, Any] = {"in_channels": channels, "size": list(images.images.shape[-2:])}
    for part, known in parts.items():
        if isinstance(settings.get(part), Mapping):
            settings[part] = _completed(settings[part], known, given)
    if isinstance(settings.get("decoder"), Mapping) and isinstance(settings["detector"], Mapping):
        given |= {k: v for k, v in settings["detector"].items() if k == "keypoints"}
        given |= {k: v for k, v in settings.items() if k == "patch_size"}
        settings["decoder"] = _completed(settings["decoder"], DECODERS, given)
    return _completed(settings, MODELS, {"in_channels": channels})


def _completed(settings: dict[str, Any], known: Mapping[str, Any], given: dict[str, Any]) -> Any:
    """Return settings with those given values that their kind takes and that they lack."""
    kind = known.get(settings.get("name", ""))
    takes = {} if kind is None else inspect.signature(kind).parameters
    return {**{key: value for key, value in given.items() if key in takes}, **settings}


def _start(model: ImageModel, recipe: Recipe) -> None:
    """Take over the recipe's first weights, and freeze what it does not train."""
    from foveal import zoo

    if recipe.training.start:
        theirs = zoo.load(recipe.training.start).state_dict()
        ours = model.state_dict()
        parts = {key.split(".")[0] for key in ours} & {key.split(".")[0] for key in theirs}
        if recipe.training.start_part:
            if recipe.training.start_part not in parts:
                raise unknown_name("part to start from", recipe.training.start_part, parts)
            parts = {recipe.training.start_part}
        shared = {key: value for key, value in theirs.items() if key.split(".")[0] in parts}
        expected = {key: value.shape for key, value in ours.items() if key.split(".")[0] in parts}
        if not shared or {key: value.shape for key, value in shared.items()} != expected:
            raise UserError(
                f"{recipe.training.start} has no weights that fit this model: its parts named alike"
                f" ({', '.join(sorted(parts)) or 'none'}) must be built alike."
            )
        model.load_state_dict(shared, strict=False)
    if recipe.training.freeze:
        if recipe.training.recalibrate:
            raise UserError(
                "training.recalibrate would measure the frozen part anew: set it to 0, or freeze "
                "nothing."
            )
        part = getattr(model, recipe.training.freeze, None)
        if not isinstance(part, torch.nn.Module):
            names = [name for name, _ in model.named_children()]
            raise unknown_name("part to freeze", recipe.training.freeze, names)
        part.requires_grad_(False).eval()


def _whiten(model: ImageModel, images: ImageSet) -> None:
    """Set the filters of a whitening first layer, if the model has one."""
    for layer in model.modules():
        if isinstance(layer, WhiteningConv):
            some = images.images[:: max(1, len(images) // 5_000)].float() / 255
            layer.fit((some - model.mean) / model.std)


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
        if resume and kept.exists():
            import yaml

            if parse_recipe(yaml.safe_load(kept.read_text(encoding="utf-8"))) != recipe:
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
    sets: dict[str, ImageSet],
    out: Path,
    resume: bool,
    devices: str | int,
    precision: str,
    progress: bool,
    say: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Run Lightning; return path, epoch and validation figures of the weights to keep."""
    import lightning as L

    from foveal.training.callbacks import AveragedWeights, loggers, run_callbacks
    from foveal.training.module import ClassifierModule, RecipeModule
    from foveal.training.reconstruction import ReconstructionModule

    with quiet_lightning():
        training = recipe.training
        pixels, masks = sets["train"].images, sets["train"].masks
        batches = Batches(
            pixels if masks is None else torch.cat([pixels, masks], dim=1),
            sets["train"].labels,
            training.batch_size,
            training.seed,
            lambda: trainer.current_epoch,
            recipe.augment.alternate,
        )
        validation = Batches(sets["val"].images, sets["val"].labels, 1000)
        rebuilds = isinstance(model, PatchReconstructor)
        kind: type[RecipeModule] = ReconstructionModule if rebuilds else ClassifierModule
        module = kind(model, recipe, training.epochs * len(batches))
        if isinstance(module, ClassifierModule) and training.balance:
            module.weigh(sets["train"].labels)
        module = module.to(memory_format=torch.channels_last)
        average = None
        if training.average:
            order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
            few = sets["train"].images[order[: training.recalibrate]]
            average = AveragedWeights(training.average, few, training.batch_size)
        callbacks, best, curve = run_callbacks(out, module, progress, average, say)
        trainer = L.Trainer(
            max_epochs=training.epochs,
            devices=devices,
            precision=precision,  # type: ignore[arg-type]
            logger=loggers(out),
            callbacks=callbacks,
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
    return {"path": path, "epoch": int(row["epoch"]), module.monitor: row[module.monitor]}


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
