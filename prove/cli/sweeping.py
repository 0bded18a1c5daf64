"""From an experiment to what there is to do: its jobs, which of them are new, and what a launch needs of each."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prove.catalog.losses import short
from prove.catalog.strategies import Strategy, resolve_strategy
from prove.catalog.user_terms import terms_of
from prove.cli.execute import trained_on
from prove.cli.own_terms import require_sound
from prove.cli.request import Plan, Planner, RunRequest, with_weights
from prove.data.check import check
from prove.data.manifest import fingerprint
from prove.errors import ProveError
from prove.launch.folder import Assignment, stem_of
from prove.launch.start import UNSTARTED
from prove.rundir import RunDir, read_json
from prove.spec import Job
from prove.spec.event import State
from prove.spec.recipe import Recipe
from prove.store import Store
from prove.store.cells import CellGroup, Cells, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from prove.spec.experiment import Experiment
    from prove.store.accounting import Rates

CHUNK = 2000
"""Jobs that are looked up at a time."""

KEPT = 20_000
"""Most jobs that are kept in memory together, at some kilobytes each."""

NEW = "new"
"""What a job is that the database does not know."""


@dataclass(frozen=True)
class Wanted:
    """A job that is to be run, and the request that says where."""

    request: RunRequest
    job: Job


@dataclass
class Census:
    """What became of a matrix's jobs when they were looked up.

    Attributes:
        tally: jobs by group and state (`NEW` or a `State`).
        total: jobs, each key once.
        repeated: cells whose job another cell is already.
        seconds: training time that what is not finished is expected to take, as far as it can be known.
        unknown: jobs not finished of which no time is known.
    """

    tally: Tally = field(default_factory=Tally)
    total: int = 0
    repeated: int = 0
    seconds: float = 0.0
    unknown: int = 0

    @cached_property
    def cells(self) -> Cells:
        """Jobs by group and state; only when all are counted."""
        return self.tally.cells()

    @property
    def counts(self) -> Counter[str]:
        """Jobs by state."""
        return sum(self.cells.values(), Counter())


def require_known(experiment: Experiment, planner: Planner) -> None:
    """Refuse names and objectives that do not exist, each with its place in the experiment's file.

    Raises:
        ProveError: the first of them.
    """
    planner.register(tuple(str(path) for path in experiment.terms))
    for name, value, _ in experiment.values():
        try:
            planner.require_known(name, value)
        except ProveError as error:
            raise experiment.error(name, value, error) from error
    if (baseline := experiment.report.get("baseline")) is not None:
        try:
            planner.require_known("loss", baseline)
        except ProveError as error:
            raise experiment.report.error("baseline", f"baseline: {error.message}", error.hint) from error


def jobs(experiment: Experiment, planner: Planner) -> Iterator[Wanted]:
    """The jobs of an experiment, lazily, in the order of its matrix; two cells may be one job.

    Raises:
        ProveError: a cell is impossible; says which.
    """
    base = RunRequest(terms=tuple(str(path) for path in experiment.terms) or None)
    for cell in experiment.cells():
        request = dataclasses.replace(base, **cell)
        try:
            yield Wanted(request, planner.job(request))
        except ProveError as error:
            raise ProveError(f"{error.message}\nThis is the cell {_described(request)}.", hint=error.hint) from error


def possible_jobs(experiment: Experiment, planner: Planner) -> Callable[[], Iterable[Wanted]]:
    """Go through all jobs of an experiment; then hand them out as often as they are asked for.

    Up to `KEPT` of them are kept, more are made anew each time: memory does not grow with the matrix.

    Raises:
        ProveError: a cell is impossible, or there is none.
    """
    found = jobs(experiment, planner)
    kept = list(islice(found, KEPT + 1))
    if not kept:
        raise empty()
    if len(kept) <= KEPT:
        return lambda: kept
    kept.clear()
    for _ in found:
        pass
    return lambda: jobs(experiment, planner)


def require_data(
    wanted: Iterable[Wanted],
    states_of: Callable[[Sequence[str]], Mapping[str, tuple[State, str | None]]],
    planner: Planner,
) -> None:
    """Refuse datasets, conditions and generated images that are not there, before a run of them is recorded.

    Only what a sweep would train is looked at: the images of finished runs need no longer be here.

    Raises:
        ProveError: the first of them.
    """
    seen: set[tuple[Any, ...]] = set()
    rest = iter(wanted)
    while chunk := list(islice(rest, CHUNK)):
        fresh = [(place, each) for each in chunk if (place := _place(each)) not in seen]
        known = states_of([each.job.key for _, each in fresh])
        for place, each in fresh:
            state, _ = known.get(each.job.key, (State.PLANNED, None))
            if place not in seen and state in UNSTARTED:
                seen.add(place)
                planner.plan(dataclasses.replace(each.request, device="cpu"))


def _place(wanted: Wanted) -> tuple[Any, ...]:
    """What decides which images a job is trained on, and where they are looked for."""
    request = wanted.request
    return request.dataset, request.data_root, wanted.job.recipe, request.gen_root


def empty() -> ProveError:
    """The error for a matrix without a cell."""
    return ProveError("The matrix is empty: every cell is excluded.", hint="Look at its exclude entries.")


def _described(request: RunRequest) -> str:
    default = RunRequest()
    named = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    changed = [f"{name}={value}" for name, value in named.items() if value != getattr(default, name)]
    return ", ".join(changed) or "of defaults alone"


def survey(
    wanted: Iterable[Wanted], states_of: Callable[[Sequence[str]], Mapping[str, tuple[State, str | None]]], rates: Rates
) -> tuple[Census, Iterator[Wanted]]:
    """Look up the jobs of a matrix, some thousand at a time.

    Args:
        states_of: state and claiming launch of those keys that are registered.
        rates: how long runs like these took.

    Returns:
        the census, complete once the iterator is used up, and the jobs, each key once.
    """
    census = Census()
    return census, _surveyed(wanted, states_of, rates, census)


def _surveyed(
    wanted: Iterable[Wanted],
    states_of: Callable[[Sequence[str]], Mapping[str, tuple[State, str | None]]],
    rates: Rates,
    census: Census,
) -> Iterator[Wanted]:
    seen: set[str] = set()
    text_of = cache(short)
    rest = iter(wanted)
    while chunk := list(islice(rest, CHUNK)):
        fresh = []
        for each in chunk:
            if each.job.key in seen:
                census.repeated += 1
            else:
                seen.add(each.job.key)
                fresh.append(each)
        known = states_of([each.job.key for each in fresh])
        for each in fresh:
            job = each.job
            group = CellGroup(job.dataset_name, job.model.name, job.strategy, text_of(job.loss))
            state = known[job.key][0].value if job.key in known else NEW
            census.tally.add(group, job.canonical, state)
            census.total += 1
            if state != State.FINISHED:
                seconds = rates.seconds(job, group.loss)
                census.unknown += seconds is None
                census.seconds += seconds or 0.0
            yield each


@dataclass(frozen=True)
class Prepared:
    """What a launch needs: the assignments, and the files that they share."""

    assignments: tuple[Assignment, ...]
    files: Mapping[str, bytes]


GPU_WORKERS = 4
"""Processes that load data for a run on a GPU, where nothing else is said; on a CPU the training process does it."""


def prepare(
    wanted: Sequence[Wanted], planner: Planner, rates: Rates, say: Callable[[str], None], *, on_gpus: bool
) -> Prepared:
    """Check everything that runs need and that can be checked before they start.

    Each dataset is read once, each of the user's own terms is executed once, each pretrained backbone is fetched once.

    Args:
        on_gpus: whether the runs are expected to get GPUs; what they do get, their slots say.

    Raises:
        ProveError: a dataset is not there or has faults, a term can't be used, weights can't be had.
    """
    files: dict[str, bytes] = {}
    checked: set[tuple[Any, ...]] = set()
    weights: dict[str | None, Plan] = {}
    sound: set[str] = set()
    assignments = []
    for each in wanted:
        workers = each.request.workers
        if workers is None:
            workers = GPU_WORKERS if on_gpus and each.request.device != "cpu" else 0
        # What this machine has is not what the one has that will train: there, the slot says.
        plan = planner.plan(dataclasses.replace(each.request, device="cpu", workers=workers))
        if (place := _place(each)) not in checked:
            checked.add(place)
            images = sum(len(split) for split in plan.dataset.splits)
            say(f"checking {images} images of {plan.job.dataset_name} (only what has changed is read)")
            check(plan.dataset).raise_if_bad()
        own = terms_of(plan.job.loss)
        require_sound([term for term in own if term.name not in sound])
        sound.update(term.name for term in own)
        terms = {term.name: _keep_term(files, term.text.encode(), term.python) for term in own}
        source = plan.placement.weights
        if source not in weights:
            weights[source] = with_weights(plan, say)
        placement = dataclasses.replace(plan.placement, weights=weights[source].placement.weights)
        assignments.append(
            Assignment(
                key=each.job.key,
                job=each.job.to_dict(),
                placement=dataclasses.asdict(placement),
                device=each.request.device,
                model_config=_keep_config(files, plan.model_config.encode()) if plan.model_config is not None else None,
                terms=terms,
                peak_memory_mib=rates.peak_memory_mib(each.job),
            )
        )
    return Prepared(tuple(assignments), files)


def _keep_config(files: dict[str, bytes], content: bytes) -> str:
    """Put a flattened config among a launch's files; returns its name there."""
    name = f"{stem_of(content)}.py"
    files[name] = content
    return name


def _keep_term(files: dict[str, bytes], text: bytes, python: bytes) -> str:
    """Put a term of the user's own among a launch's files; returns the stem of their names there."""
    stem = stem_of(text, python)
    files[f"{stem}.yaml"], files[f"{stem}.py"] = text, python
    return stem


def names_of(wanted: Iterable[Job]) -> dict[str, str]:
    """What to call each of these jobs, by key: its objective, its seed, and what else they differ in."""
    facts = {job.key: _facts(job) for job in wanted}
    varying = {
        name
        for name in {name for each in facts.values() for name in each}
        if name in ("loss", "seed") or len({each.get(name) for each in facts.values()}) > 1
    }
    return {
        key: ", ".join(value if name in _BARE else f"{name} {value}" for name, value in each.items() if name in varying)
        for key, each in facts.items()
    }


_BARE = ("dataset", "model", "strategy", "loss")
"""Facts that need no name beside them."""


def _facts(job: Job) -> dict[str, str]:
    train = {name: "none" if value is None else str(value) for name, value in vars(job.train).items()}
    train["domain_filter"] = "+".join(job.train.domain_filter or ("all",))
    named = {"dataset": job.dataset_name, "model": job.model.name, "strategy": job.strategy}
    return {**named, "loss": short(job.loss), **train, "seed": str(job.seed)}


def require_same_data(missing: Sequence[Wanted], finished: Sequence[Wanted], planner: Planner, results: Path) -> None:
    """Refuse to train runs beside finished ones that saw other images or labels under the same name.

    Args:
        missing: the runs that are to be trained; only their datasets are looked at.
        finished: the finished runs of the same matrix.

    Raises:
        ProveError: a finished run was trained on something else, or no longer says on what.
    """
    here: dict[tuple[str, Recipe], dict[str, str]] = {}
    val: dict[str, str] = {}
    for each in missing:
        if (source := _source(each.job)) not in here:
            dataset = planner.plan(dataclasses.replace(each.request, device="cpu")).dataset
            here[source] = {"train": fingerprint(dataset.train), "val": fingerprint(dataset.val)}
            val[each.job.dataset_name] = here[source]["val"]
    other: dict[str, list[str]] = {}
    for each in finished:
        name = each.job.dataset_name
        if name not in val:
            continue
        now = here.get(_source(each.job), {"val": val[name]})
        then = trained_on(RunDir.of(results, each.job.key))
        if then is None or any(then.get(split) != content for split, content in now.items()):
            other.setdefault(name, []).append(each.job.key)
    for name, keys in other.items():
        named = ", ".join(keys[:3]) + ", ..." * (len(keys) > 3)
        raise ProveError(
            f"{len(keys)} finished runs of this matrix were trained on other images or labels under the name {name} "
            f"than are here now, or no longer say on which: {named}. New runs could not be compared to them.",
            hint="Bring the data back, or sweep into another folder with --results DIR.",
        )


def _source(job: Job) -> tuple[str, Recipe]:
    """What decides which files a job is trained on; what happens to images on the way does not."""
    generated = resolve_strategy(job.strategy).generated
    return job.dataset_name, dataclasses.replace(job.recipe, strategy=Strategy(generated).name)


def of_run_folders(store: Store, keys: Sequence[str]) -> Prepared:
    """What it takes to run these again, from what their folders hold.

    Raises:
        ProveError: a run has no folder, or not all of what it was started with.
    """
    assignments: list[Assignment] = []
    files: dict[str, bytes] = {}
    for key in keys:
        run = RunDir.of(store.results_folder, key)
        launch: dict[str, Any] = read_json(run.launch)
        terms = {path.stem: [each.read_bytes() for each in run.term_files(path.stem)] for path in run.saved_terms()}
        assignments.append(
            Assignment(
                key=key,
                job=read_json(run.job),
                placement=launch["placement"],
                device=_device(run, launch),
                model_config=_keep_config(files, run.model_config.read_bytes()) if run.model_config.exists() else None,
                terms={name: _keep_term(files, *contents) for name, contents in terms.items()},
            )
        )
    return Prepared(tuple(assignments), files)


def _device(run: RunDir, launch: Mapping[str, Any]) -> str:
    """The device that a run is to go on on; what was begun on the CPU goes on there."""
    asked = str(launch.get("device", "auto" if launch["placement"]["cuda"] else "cpu"))
    if asked == "auto" and run.saved_iterations() and run.env.exists():
        begun_on_cuda = read_json(run.env).get("placement", {}).get("cuda", True)
        return "auto" if begun_on_cuda else "cpu"
    return asked
