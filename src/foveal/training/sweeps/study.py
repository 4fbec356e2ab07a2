"""Studies: trials that several processes share through Optuna's SQLite file."""

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
_WAIT = 60  # seconds to wait while another process writes
Space = Mapping[str, Sequence[str]]  # values to try per key, as recipe overrides


@dataclass(frozen=True)
class Trial:
    """A trial of a study: its settings and results.

    Attributes:
        number: index in the study, from 0.
        settings: values by key, as recipe overrides.
        state: `complete`, `pruned`, `running` or `fail`.
        val_accuracy: validation accuracy of the kept weights, as a fraction, or None.
        evidence_fraction: mean over the validation images, or None.
    """

    number: int
    settings: dict[str, str]
    state: str
    val_accuracy: float | None
    evidence_fraction: float | None


class Claim:
    """A trial held by this process; no other process works on it while this one runs."""

    def __init__(self, trial: "optuna.Trial", settings: dict[str, str], folder: Path):
        self._trial = trial
        self.number: int = trial.number
        self.settings = settings
        self.folder = folder

    def report(self, epoch: int, accuracy: float) -> bool:
        """Report an epoch's validation accuracy; return whether the trial should be pruned."""
        self._trial.report(accuracy, epoch)
        return bool(self._trial.should_prune())

    def note(self, **values: float | None) -> None:
        """Store values with the trial."""
        for name, value in values.items():
            self._trial.set_user_attr(name, value)


class Study:
    """A folder with a study and a run folder per trial.

    Args:
        folder: the folder, created if it is missing.
        space: values to try.
        inputs: recipe and data, which all trials of the study share.
        sampler: `grid` tries each combination once, `tpe` learns which to try next (Bergstra et
            al. 2011).
        seed: random seed of the sampler.
        prune: whether to stop a trial whose accuracy is below the other trials' median at the same
            epoch.

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
        optuna = _optuna()
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
        """Yield a trial to work on, or None if the study has enough that are complete or running.

        A trial whose process died counts as failed, and its settings can be claimed again.

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
        self._fail_abandoned()
        states = _optuna().trial.TrialState
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
        """Mark running trials as failed if their process has died."""
        states = _optuna().trial.TrialState
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
        """Record the accuracy of a trial; None if it failed."""
        states = _optuna().trial.TrialState
        if accuracy is None:
            self._study.tell(claim.number, state=states.FAIL)
        elif pruned:
            claim.note(val_accuracy=accuracy)
            self._study.tell(claim.number, state=states.PRUNED)
        else:
            claim.note(val_accuracy=accuracy)
            self._study.tell(claim.number, accuracy)

    def run_folder(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.folder / f"trial-{number:04d}"

    def trials(self) -> list[Trial]:
        """Return all trials, ordered by number."""
        return [
            Trial(
                trial.number,
                dict(trial.params),
                trial.state.name.lower(),
                trial.user_attrs.get("val_accuracy"),
                trial.user_attrs.get("evidence_fraction"),
            )
            for trial in self._study.get_trials(deepcopy=False)
        ]


def combinations(space: Space) -> list[dict[str, str]]:
    """Return every combination of the values; the last key varies fastest."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise missing_extra("optuna", "sweep") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _storage(folder: Path) -> "optuna.storages.RDBStorage":
    from sqlalchemy.engine import URL

    url = URL.create("sqlite", database=str(folder / FILE))
    options = {"connect_args": {"timeout": _WAIT}}
    return _optuna().storages.RDBStorage(str(url), engine_kwargs=options)


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Lock a file; the system releases the lock if this process dies.

    Raises:
        OSError: another process holds it, and `wait` is False.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
