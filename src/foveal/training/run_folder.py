"""Run folders, each of which is locked by one process at a time and holds a single run."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.escaping import as_unicode, printable
from foveal.foundation.files import is_full_disk, locked_folder
from foveal.training.recipe import load_recipe, write_recipe
from foveal.training.settings import Recipe

# Names of files and folders in a run folder.
CHECKPOINTS, RECIPE, TENSORBOARD = "checkpoints", "recipe.yaml", "tensorboard"
FEATURES = "features"  # deleted after training, unless `keep_features` is set


@contextmanager
def run_folder(
    out: Path, recipe: Recipe, resume: bool, notify: Callable[[str], None]
) -> Iterator[None]:
    """Lock the folder of a run and write its recipe, then run the block.

    A folder may be used if it is new, holds no results yet (see `holds_run`), or holds the same run
    and `resume` is set. Its recipe is overwritten. If the block fails before there are results, the
    files of the run are removed.

    Args:
        out: the folder, created if it is missing.
        recipe: recipe of the run.
        resume: whether the folder may hold results of this run already.
        notify: called with a line if the recipe in the folder cannot be read.

    Raises:
        UserError: another process holds the folder, it contains another run or links, or it cannot
            be written to.
    """
    if as_unicode(str(out)) != str(out):  # TensorBoard fails if a path is not valid Unicode
        raise UserError(f"Expected a run folder whose path is UTF-8, but got {printable(out)}.")
    with ExitStack() as stack:
        with _as_user_errors(out):
            is_new = not out.exists()
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_folder(out))
            _refuse_links(out)
            if holds_run(out):
                _check_same(out, recipe, resume, notify)
            had_logs = (out / TENSORBOARD).exists()
            write_recipe(recipe, out / RECIPE)
        try:
            yield
        except BaseException as error:
            if not holds_run(out):
                _clear(out, had_logs, is_new)
            if isinstance(error, OSError) and is_full_disk(error):
                raise UserError(_cannot_write(out, error)) from error
            raise


@contextmanager
def _as_user_errors(out: Path) -> Iterator[None]:
    """Raise errors of the block as a UserError: a locked folder, or one that cannot be written."""
    try:
        yield
    except BlockingIOError:
        raise UserError(
            f"Another process is training into {printable(out)}: wait for it, or use another --out."
        ) from None
    except UserError:  # is a ValueError too, but its message is complete
        raise
    except (OSError, ValueError) as error:  # a ValueError if the path contains a null character
        raise UserError(_cannot_write(out, error)) from error


def holds_run(out: Path) -> bool:
    """Return whether a folder holds checkpoints, a model, or cross-validation results."""
    results = (*(out / CHECKPOINTS).glob("*.ckpt"), *out.glob("fold-*.json"))
    return bool(results) or (out / "model.safetensors").exists()


def _cannot_write(out: Path, error: OSError | ValueError) -> str:
    """Return the message for an error on writing to a run folder."""
    if not isinstance(error, OSError):
        return f"Cannot write to {printable(out)}: {error}."
    if is_full_disk(error):
        return (
            f"The disk is full: cannot write the run {printable(out)}. Completed epochs are kept; "
            "free some space and run the same command with --resume."
        )
    return f"Cannot write to {printable(out)}: {error.strerror or error}."


def _refuse_links(out: Path) -> None:
    """Check that a folder contains no links, through which files would be written elsewhere.

    Raises:
        UserError: the folder, or one of the subfolders of a run, contains a link.
    """
    for folder in (out, out / CHECKPOINTS, out / TENSORBOARD, out / FEATURES):
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            if path.is_symlink():
                raise UserError(
                    f"{printable(path)} is a link, but a run writes only to its own files: "
                    "remove it, or use another --out."
                )


def _check_same(out: Path, recipe: Recipe, resume: bool, notify: Callable[[str], None]) -> None:
    """Check that a folder with results may be used: for resuming a run with the same recipe.

    Raises:
        UserError: `resume` is not set, or the run was started with another recipe.
    """
    if not resume:
        raise UserError(f"{printable(out)} holds a run already: use --resume or another --out.")
    recipe_path = out / RECIPE
    if not recipe_path.exists():
        return
    try:
        is_same = load_recipe(recipe_path) == recipe
    except UserError as error:
        notify(f"{error} The file is overwritten; the checkpoints also contain its settings.")
        return
    if not is_same:
        raise UserError(
            f"{printable(out)} was started with other settings: resume with those in "
            f"{printable(recipe_path)}."
        )


def _clear(out: Path, had_logs: bool, is_new: bool) -> None:
    """Remove the files of a run that ended before its first checkpoint.

    Args:
        out: the run folder.
        had_logs: whether it had TensorBoard logs before the run; they are kept.
        is_new: whether the run created the folder, which is then removed too if it is empty.
    """
    with suppress(OSError):
        (out / RECIPE).unlink(missing_ok=True)
        (out / "metrics.csv").unlink(missing_ok=True)
        shutil.rmtree(out / FEATURES, ignore_errors=True)
        if not had_logs:
            shutil.rmtree(out / TENSORBOARD, ignore_errors=True)
        if (out / CHECKPOINTS).exists():
            (out / CHECKPOINTS).rmdir()
        if is_new:
            out.rmdir()
