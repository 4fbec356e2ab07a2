"""Studies of a sweep, which several processes may work on at the same time.

A study is a set of trials, each of which trains one model. The processes share the trials in a file
of Optuna, an SQLite database.
"""

import fcntl
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from foveal.foundation.errors import UserError, missing_extra, unknown_name

if TYPE_CHECKING:
    import optuna

FILE = "study.sqlite3"
SAMPLERS = ("grid", "tpe")
_TIMEOUT_S = 60  # seconds to wait while another process writes
Space = Mapping[str, Sequence[str]]  # for each key of a recipe, the values to try, as YAML text


@dataclass(frozen=True)
class Trial:
    """A trial of a study: its settings and results.

    Attributes:
        number: index in the study, from 0.
        settings: values by key of the recipe, as YAML text.
        state: `complete`, `pruned` (stopped early), `running` or `fail`.
        val_accuracy: validation accuracy of the kept weights, as a fraction; None until the trial
            has ended, or if it failed.
        evidence_fraction: fraction of the pixels that the decision was made from, as a mean over
            validation images; None as for `val_accuracy`.
    """

    number: int
    settings: dict[str, str]
    state: str
    val_accuracy: float | None
    evidence_fraction: float | None


class Claim:
    """A trial that this process works on; no other process can claim it while this one runs.

    Args:
        trial: the trial, as Optuna represents it.
        settings: values by key of the recipe, as YAML text.
        folder: run folder of the trial.
    """

    def __init__(self, trial: "optuna.Trial", settings: dict[str, str], folder: Path):
        self._trial = trial
        self.number: int = trial.number
        self.settings = settings
        self.folder = folder

    def report(self, epoch: int, accuracy: float) -> bool:
        """Record an epoch's validation accuracy, and return whether the trial should stop early."""
        self._trial.report(accuracy, epoch)
        return bool(self._trial.should_prune())

    def store(self, **values: float | None) -> None:
        """Store values by name with the trial; they are kept even if the process dies later."""
        for name, value in values.items():
            self._trial.set_user_attr(name, value)


class Study:
    """A study in a folder, with a run folder per trial.

    Args:
        folder: the folder, created if it is missing.
        space: values to try.
        inputs: recipe and data, which all trials of the study share.
        sampler: `grid` tries each combination once; `tpe` chooses the next one by the accuracies of
            earlier trials (Bergstra et al. 2011).
        seed: random seed of `tpe`; 0 for a different one in each process.
        prune: whether to stop a trial early if its accuracy is below the other trials' median at
            the same epoch.

    Raises:
        UserError: Optuna is not installed, or the folder holds a study of another recipe, other
            data or another space.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        inputs: Mapping[str, str | None],
        sampler: str = "grid",
        seed: int = 0,
        prune: bool = True,
    ):
        if sampler not in SAMPLERS:
            raise unknown_name("sampler", sampler, SAMPLERS)
        self.folder, self.space, self.sampler = folder, space, sampler
        optuna = _import_optuna()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write to {folder}: {error.strerror or error}.") from None
        pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1)
        with _locked(folder / "_lock"):
            self._study = optuna.create_study(
                storage=_storage(folder),
                study_name="foveal",
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.TPESampler(seed=seed or None, constant_liar=True),
                pruner=pruner if prune else optuna.pruners.NopPruner(),
            )
            self._check({**inputs, "space": {key: list(values) for key, values in space.items()}})

    def _check(self, inputs: Mapping[str, object]) -> None:
        """Check that the study has the same inputs; those of a new study are stored.

        Raises:
            UserError: the study has other inputs.
        """
        stored = self._study.user_attrs
        for name, value in inputs.items():
            if stored and stored.get(name) != value:
                raise UserError(
                    f"{self.folder} holds a sweep with {name}={stored.get(name)!r}, but got "
                    f"{value!r}: use another --out."
                )
            self._study.set_user_attr(name, value)

    @contextmanager
    def claimed(self, count: int) -> Iterator[Claim | None]:
        """Yield a trial to work on, or None if the study has enough trials or no settings are left.

        A running trial whose process has died counts as failed, so its settings are tried again.

        Args:
            count: number of trials that the study should have, without failed ones.
        """
        with ExitStack() as stack:
            with _locked(self.folder / "_lock"):
                claim = self._claim(count)
                if claim is not None:
                    claim.folder.mkdir(exist_ok=True)
                    stack.enter_context(_locked(claim.folder / "_lock"))
            yield claim

    def _claim(self, count: int) -> Claim | None:
        """Return the next trial, while this process holds the lock of the study; see `claimed`."""
        self._fail_abandoned()
        states = _import_optuna().trial.TrialState
        trials = [t for t in self._study.get_trials(deepcopy=False) if t.state != states.FAIL]
        if len(trials) >= count:
            return None
        if self.sampler == "grid":
            tried = [t.params for t in trials]
            untried = [settings for settings in combinations(self.space) if settings not in tried]
            if not untried:
                return None
            self._study.enqueue_trial(untried[0])
        trial = self._study.ask()
        settings = {key: trial.suggest_categorical(key, self.space[key]) for key in self.space}
        return Claim(trial, settings, self.run_folder(trial.number))

    def _fail_abandoned(self) -> None:
        """Mark running trials as failed if their process has died.

        The process of a trial locks a file in its run folder, and the lock ends with the process.
        """
        states = _import_optuna().trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            with ExitStack() as stack:
                try:
                    stack.enter_context(
                        _locked(self.run_folder(trial.number) / "_lock", wait=False)
                    )
                except OSError:
                    continue  # its process is alive
                self._study.tell(trial.number, state=states.FAIL)

    def end(self, claim: Claim, accuracy: float | None, pruned: bool = False) -> None:
        """End a trial.

        Args:
            claim: the trial.
            accuracy: validation accuracy of the kept weights, as a fraction; None if it failed.
            pruned: whether the trial was stopped early.
        """
        states = _import_optuna().trial.TrialState
        if accuracy is None:
            self._study.tell(claim.number, state=states.FAIL)
        elif pruned:
            claim.store(val_accuracy=accuracy)
            self._study.tell(claim.number, state=states.PRUNED)
        else:
            claim.store(val_accuracy=accuracy)
            self._study.tell(claim.number, accuracy)

    def run_folder(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.folder / f"trial-{number:04d}"

    def trials(self) -> list[Trial]:
        """Return all trials, ordered by number."""
        return [
            Trial(
                number=trial.number,
                settings=dict(trial.params),
                state=trial.state.name.lower(),
                val_accuracy=trial.user_attrs.get("val_accuracy"),
                evidence_fraction=trial.user_attrs.get("evidence_fraction"),
            )
            for trial in self._study.get_trials(deepcopy=False)
        ]


def combinations(space: Space) -> list[dict[str, str]]:
    """Return all combinations of the values, as values by key; the last key varies fastest."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def _import_optuna() -> ModuleType:
    """Import Optuna, with its messages switched off, except errors.

    Raises:
        UserError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise missing_extra("optuna", "sweep") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _storage(folder: Path) -> "optuna.storages.RDBStorage":
    """Return Optuna's interface to the SQLite file in a folder."""
    from sqlalchemy.engine import URL

    url = URL.create("sqlite", database=str(folder / FILE))
    options = {"connect_args": {"timeout": _TIMEOUT_S}}
    return _import_optuna().storages.RDBStorage(str(url), engine_kwargs=options)


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Lock a file while the block runs; the system releases the lock if this process dies.

    Args:
        path: the file, created if it is missing.
        wait: whether to wait while another process holds the lock.

    Raises:
        OSError: another process holds the lock, and `wait` is False.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
