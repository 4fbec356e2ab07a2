"""The folder of a run: held by one process at a time, and never taken from another run."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.escaping import as_unicode, printable
from foveal.foundation.files import held_folder, is_full_disk
from foveal.training.recipe import load_recipe, write_recipe
from foveal.training.settings import Recipe

CHECKPOINTS, RECIPE, TENSORBOARD = "checkpoints", "recipe.yaml", "tensorboard"
FEATURES = "features"  # while it trains


@contextmanager
def run_folder(
    out: Path, recipe: Recipe, resume: bool, say: Callable[[str], None]
) -> Iterator[None]:
    """Hold the folder of a run, with its recipe written, while the block runs.

    A folder without a checkpoint or a model is of a run that never got so far, and is taken over.
    What the block leaves without a checkpoint is taken away again.

    Args:
        out: the folder, made if it is not there.
        recipe: of the run.
        resume: whether it may hold this run already.
        say: told of what could not be read.

    Raises:
        UserError: another process holds the folder, it holds another run or links that lead out of
            it, or it cannot be written to.
    """
    if as_unicode(str(out)) != str(out):  # TensorBoard writes to no other
        raise UserError(f"Expected a run folder whose path is UTF-8, but got {printable(out)}.")
    with ExitStack() as holding:
        try:
            made = not out.exists()
            out.mkdir(parents=True, exist_ok=True)
            holding.enter_context(held_folder(out))
            _refuse_links(out)
            if holds_run(out):
                _check_same(out, recipe, resume, say)
            logged = (out / TENSORBOARD).exists()
            write_recipe(recipe, out / RECIPE)
        except BlockingIOError:
            raise UserError(
                f"Another process trains into {printable(out)}: wait for it, or give another --out."
            ) from None
        except UserError:
            raise
        except (OSError, ValueError) as error:  # a ValueError: no system has such a name
            raise UserError(_cannot_write(out, error)) from error
        try:
            yield
        except BaseException as error:
            if not holds_run(out):
                _clear(out, logged, made)
            if isinstance(error, OSError) and is_full_disk(error):
                raise UserError(_cannot_write(out, error)) from error
            raise


def holds_run(out: Path) -> bool:
    """Return whether a folder holds a checkpoint, a trained model, or what folds have found."""
    found = (*(out / CHECKPOINTS).glob("*.ckpt"), *out.glob("fold-*.json"))
    return bool(found) or (out / "model.safetensors").exists()


def _cannot_write(out: Path, error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return f"Cannot write to {printable(out)}: {error}."
    if is_full_disk(error):
        return (
            f"The disk is full: the run {printable(out)} cannot be written. What was finished is "
            "kept; make room and give the same command with --resume."
        )
    return f"Cannot write to {printable(out)}: {error.strerror or error}."


def _refuse_links(out: Path) -> None:
    """Refuse a folder in which what is written by its name would land elsewhere."""
    for folder in (out, out / CHECKPOINTS, out / TENSORBOARD, out / FEATURES):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_symlink():
                raise UserError(
                    f"{printable(path)} is a link: a run is written into files of its own. Take it "
                    "away, or give another --out."
                )


def _check_same(out: Path, recipe: Recipe, resume: bool, say: Callable[[str], None]) -> None:
    """Check that a run goes on with the settings that it was started with."""
    if not resume:
        raise UserError(f"{printable(out)} holds a run already: give --resume or another --out.")
    kept = out / RECIPE
    if not kept.exists():
        return
    try:
        same = load_recipe(kept) == recipe
    except UserError as error:
        say(f"{error} It is written anew; the checkpoints know their settings.")
        return
    if not same:
        raise UserError(
            f"{printable(out)} was started with other settings, see {printable(kept)}: resume with "
            "those."
        )


def _clear(out: Path, logged: bool, made: bool) -> None:
    """Take away what a run wrote that did not come to a checkpoint."""
    with suppress(OSError):
        (out / RECIPE).unlink(missing_ok=True)
        (out / "metrics.csv").unlink(missing_ok=True)
        shutil.rmtree(out / FEATURES, ignore_errors=True)
        if not logged:
            shutil.rmtree(out / TENSORBOARD, ignore_errors=True)
        if (out / CHECKPOINTS).exists():
            (out / CHECKPOINTS).rmdir()
        if made:
            out.rmdir()
