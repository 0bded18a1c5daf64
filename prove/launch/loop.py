"""One thread that starts workers, listens to them and decides what comes next."""

from __future__ import annotations

import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from prove.errors import ProveError
from prove.launch.active import Active
from prove.launch.folder import Assignment, Launch, LaunchDir
from prove.launch.forks import Ended, Forks, is_worker, signal_orphan
from prove.launch.outcomes import Outcomes
from prove.launch.prepare import complain, prepare_assigned
from prove.launch.slots import Slot, fits
from prove.launch.timing import Timing
from prove.launch.trail import Trail
from prove.launch.verdict import End, Verdict, judge
from prove.launch.view import Pace, PoolOutcome, PoolView, RunView
from prove.launch.waiting import Entry, Waiting
from prove.launch.zygote import IMPORT_FAILED
from prove.rundir import RunDir, is_disk_full
from prove.spec.event import DISK_FULL, FailureKind

Show = Callable[[PoolView], None]

WRITE_TRIES = 3
"""How often a run folder that can't be written is tried."""

FULL = "a full disk"
"""What stops a pool where there is no room left."""

ZYGOTE_TRIES = 3
"""How many zygotes in a row may end without having forked a worker."""

FAST_FORKS = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Has what was imported lie in huge pages: forking a process and ending the fork takes half the time."""


class Pool:
    """See `prove.launch.pool.run_pool`."""

    def __init__(
        self,
        launch: LaunchDir,
        assignments: Sequence[Assignment],
        places: Sequence[Slot],
        launcher: str,
        task: int,
        show: Show,
        timing: Timing,
    ) -> None:
        self._launch, self._launcher, self._show, self._timing = launch, launcher, show, timing
        self._settings: Launch = launch.read()
        self._places = places
        self._free = list(places)
        self._waiting = Waiting(Entry(assignment) for assignment in assignments)
        self._active: dict[int, Active] = {}
        self._numbers = itertools.count()
        self._forks: Forks | None = None
        self._stillborn = 0
        self._signal = ""
        self._hurry = False
        self._closed = False
        self._pace = Pace()
        self._peaks: dict[str, float] = {}
        self._just_ended: list[RunView] = []
        self._finished: list[str] = []
        self._cancelled: list[str] = []
        self._interrupted: list[str] = []
        self._failed: dict[str, str] = {}
        self._not_started: dict[str, str] = {}
        self._outcomes = Outcomes(launch.outcome(task))
        self._turned = _clock()

    # the loop

    def run(self) -> PoolOutcome:
        watched = shown = beaten = -float("inf")
        try:
            while True:
                self._notice_pause()
                now = time.monotonic()
                if now - beaten >= self._timing.heartbeat:
                    beaten = now
                    with suppress(OSError):  # the folder may be gone, or the disk full
                        self._launch.heartbeat.touch()
                if now - watched >= self._timing.watch:
                    watched = now
                    self._watch()
                    self._outcomes.save()
                self._obey_signals(now)
                self._fill()
                if not (self._active or self._waiting) or (self._over and not self._active):
                    break
                if now - shown >= self._timing.tick:
                    shown = now
                    self._look()
                self._listen(shown + self._timing.tick)
        finally:
            if self._forks is not None:
                self._forks.close()
            self._outcomes.save()
        self._interrupted += self._waiting.drop(self._waiting.keys())
        self._show(self._view())
        return PoolOutcome(
            finished=tuple(self._finished),
            failed=dict(self._failed),
            not_started=dict(self._not_started),
            cancelled=tuple(self._cancelled),
            interrupted=tuple(self._interrupted),
            signal=self._signal,
        )

    def stop(self, number: int) -> None:
        """Called by a signal: stop, or with a second SIGINT end all."""
        if self._signal and number == signal.SIGINT:
            self._hurry = True
        self._signal = self._signal or signal.Signals(number).name

    @property
    def _over(self) -> bool:
        """Whether nothing may start any more."""
        return bool(self._signal) or self._closed

    def _notice_pause(self) -> None:
        """Stop after a pause so long that others have taken the launch for dead: its runs are theirs now."""
        before, self._turned = self._turned, _clock()
        if self._turned - before > self._timing.pause:
            self._watch()
            if self._closed:
                self._signal = self._signal or f"a pause of {self._turned - before:.0f} s"

    def _watch(self) -> None:
        """See what was called off, and whether the launch is closed."""
        try:
            self._closed, called_off = self._launch.is_closed, self._launch.called_off()
        except OSError:
            return  # the file system does not answer: it is asked again in a moment
        for active in self._active.values():
            active.called_off = active.entry.key in called_off
        self._cancelled += self._waiting.drop(called_off)

    def _obey_signals(self, now: float) -> None:
        """Tell workers to stop that have to, and end those that don't."""
        hurry = self._hurry
        if hurry:
            self._hurry = False
        for number, active in self._active.items():
            if active.told is None and (self._signal or active.called_off):
                active.told = now
                self._send(number, active, signal.SIGTERM)
            if active.told is not None and (hurry or now - active.told > self._timing.grace):
                active.told = now
                self._send(number, active, signal.SIGKILL)

    def _send(self, number: int, active: Active, which: int) -> None:
        if active.orphan is not None:
            signal_orphan(active.orphan, which)
        elif self._forks is not None:
            self._forks.signal(number, which)

    def _look(self) -> None:
        """Read what the runs report, and show it."""
        for number, active in list(self._active.items()):
            self._read(active)
            if active.orphan is not None and not is_worker(active.orphan):
                self._settle(Ended(number, -signal.SIGTERM, ""))
        self._show(self._view())
        self._just_ended.clear()

    def _read(self, active: Active) -> None:
        """Take in what a run reports, and what it needs of its GPU: others like it will need that too."""
        active.trail.read()
        if active.trail.peak_memory_mib is not None:
            kind = active.entry.kind
            self._peaks[kind] = max(self._peaks.get(kind, 0.0), active.trail.peak_memory_mib)

    def _listen(self, until: float) -> None:
        """Wait until a worker has ended, or until then."""
        seconds = max(0.0, until - time.monotonic())
        if self._forks is None:
            time.sleep(seconds)
            return
        with selectors.PollSelector() as selector:
            selector.register(self._forks, selectors.EVENT_READ)
            if not selector.select(seconds):
                return
        for ended in self._forks.hear():
            if ended.number is None:
                self._lose_zygote(ended)
            else:
                self._settle(ended)

    # starting

    def _fill(self) -> None:
        """Give free slots to the runs that are next."""
        while not self._over and self._free and (entry := self._waiting.first()) is not None:
            if self._forks is None:
                self._forks = self._new_zygote()
            slot = next((slot for slot in self._free if self._has_room(slot, entry)), None)
            if slot is None or not self._forks.ready:
                return
            self._start(self._waiting.take(), slot, self._forks)

    def _new_zygote(self) -> Forks:
        environment = {
            **FAST_FORKS,
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            **os.environ,
            "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # no checkpoint or backbone executes pickled code
            "OMP_NUM_THREADS": "1",  # a process with threads can't be forked safely; each worker sets its own number
        }
        return Forks(self._settings.worker, environment, self._timing.grace)

    def _has_room(self, slot: Slot, entry: Entry) -> bool:
        """Whether a run can go on a free slot beside those that share its GPU."""
        if slot.gpu is None:
            return True
        beside = [active for active in self._active.values() if active.slot.gpu == slot.gpu]
        if beside and (entry.alone or any(active.entry.alone for active in beside)):
            return False
        if slot.shared_mib is None:
            return True
        return fits(slot.shared_mib, [self._peak(each.entry) for each in beside], self._peak(entry))

    def _peak(self, entry: Entry) -> float | None:
        """The most that is known of what a run needs on its GPU, in MiB; None where nothing is."""
        if entry.assignment.device == "cpu":
            return 0.0
        known = (entry.assignment.peak_memory_mib, self._peaks.get(entry.kind))
        return max((peak for peak in known if peak is not None), default=None)

    def _start(self, entry: Entry, slot: Slot, forks: Forks) -> None:
        run = RunDir.of(self._launch.results, entry.key)
        placement = dict(entry.assignment.placement)
        device = entry.assignment.device
        placement |= {"threads": slot.threads, "cuda": device != "cpu" and slot.gpu is not None}
        if device == "cuda" and slot.gpu is None:
            self._give_up_on(entry.key, "it was to train on CUDA, and there is no GPU for it here")
            return
        try:
            if run.is_held():  # by another process: when that is done, the run may be finished
                self._waiting.put(entry, after=self._timing.again)
                return
            trail = Trail(run)
            if trail.finished:
                self._finished.append(entry.key)
                return
            prepare_assigned(self._launch, entry.assignment, placement, launcher=self._launcher)
            # Looked at last: what is called off or closed from here on finds a worker that can be stopped.
            if self._launch.is_closed:
                self._closed = True
                self._waiting.put(entry)
                return
            if self._launch.is_called_off(entry.key):
                self._cancelled.append(entry.key)
                return
        except (OSError, ProveError) as error:
            if is_disk_full(error):
                self._stop_for_room(entry)
                return
            entry.unwritten += 1
            if entry.unwritten < WRITE_TRIES:
                self._waiting.put(entry, after=self._timing.again * entry.unwritten)
            else:
                self._give_up_on(entry.key, f"its folder can't be written: {error}")
            return
        self._outcomes.drop(entry.key)
        trail.expect()
        entry.starts += 1
        shared = slot.gpu is not None and any(active.slot.gpu == slot.gpu for active in self._active.values())
        number = next(self._numbers)
        self._active[number] = Active(entry, slot, trail, shared)
        self._free.remove(slot)
        forks.start(number, run.path, slot.environment)

    # ending

    def _settle(self, ended: Ended) -> None:
        """A worker is gone: decide what its run is now."""
        active = self._active.pop(ended.number, None) if ended.number is not None else None
        if active is None:
            return
        self._free = [slot for slot in self._places if slot in self._free or slot == active.slot]
        self._read(active)
        entry, trail = active.entry, active.trail
        if trail.iteration > active.first:
            self._pace.measured(entry.kind, time.monotonic() - active.began, trail.iteration - active.first)
        if trail.ending and trail.ending.get("reason") == DISK_FULL:
            self._signal = self._signal or FULL
        verdict, why = judge(
            End(
                ending=trail.ending,
                status=ended.status,
                said=ended.said,
                spoke=active.spoke,
                stopped=bool(self._signal) or active.called_off,
                held=_is_held(self._launch, entry),
                gone=not RunDir.of(self._launch.results, entry.key).launch.exists(),
                shared=active.shared and not entry.alone,
                starts=entry.starts - entry.pardoned,
                max_attempts=self._settings.max_attempts,
            )
        )
        if verdict is Verdict.STOPPED and not active.called_off:
            why = f"stopped by {self._signal}"
        self._just_ended.append(active.view(self._file(verdict, why, active), why))

    def _file(self, verdict: Verdict, why: str, active: Active) -> str:
        """Put a run where it belongs now; returns its state in words."""
        entry = active.entry
        match verdict:
            case Verdict.FINISHED:
                self._finished.append(entry.key)
                return "finished"
            case Verdict.FAILED:
                self._failed[entry.key] = why
                if not active.trail.failed:
                    message = why.removeprefix(f"{FailureKind.KILLED}: ")
                    self._outcomes.add(entry.key, FailureKind.KILLED, message)
                return "failed"
            case Verdict.NOT_STARTED:
                self._give_up_on(entry.key, why)
                complain(RunDir.of(self._launch.results, entry.key), why)
                return "failed"
            case Verdict.STOPPED:
                (self._cancelled if active.called_off else self._interrupted).append(entry.key)
                return "cancelled" if active.called_off else "interrupted"
            case Verdict.HELD:
                entry.pardoned += 1
                self._waiting.put(entry, after=self._timing.again)
            case Verdict.AGAIN:
                self._waiting.put(entry, after=0.0 if active.spoke else self._timing.again)
            case Verdict.AGAIN_ALONE:
                entry.pardoned += 1
                entry.alone = True
                self._waiting.put(entry)
        return "queued"

    def _stop_for_room(self, entry: Entry) -> None:
        """What does not fit for one run does not fit for the next: those that run save and stop, if they still can."""
        self._signal = self._signal or FULL
        self._waiting.put(entry)

    def _give_up_on(self, key: str, why: str) -> None:
        """A run can't be started: nobody but this pool can say so."""
        self._not_started[key] = why
        self._outcomes.add(key, FailureKind.ERROR, why)

    def _lose_zygote(self, ended: Ended) -> None:
        """The zygote is gone: its workers have got SIGTERM, and go on under another one."""
        assert self._forks is not None
        self._stillborn = 0 if self._forks.forked else self._stillborn + 1
        pids = dict(self._forks.pids)
        self._forks.close()
        self._forks = None
        now = time.monotonic()
        for number, active in list(self._active.items()):
            active.orphan, active.told = pids.get(number), active.told or now
            if active.orphan is None:  # it was not forked yet
                active.entry.starts -= 1
                self._settle(Ended(number, -signal.SIGKILL, ""))
        if ended.status == IMPORT_FAILED or self._stillborn >= ZYGOTE_TRIES:
            last = ended.said.splitlines()[-1:] or [f"it ended with {ended.status}"]
            for key in self._waiting.drop(self._waiting.keys()):
                self._give_up_on(key, f"the process that starts workers does not come up: {last[0]}")

    # showing

    def _view(self) -> PoolView:
        active = [
            (each.entry.kind, max(0, each.entry.max_iters - each.trail.iteration), each.trail.seconds_per_iteration)
            for each in self._active.values()
        ]
        return PoolView(
            active=tuple(each.view(each.state) for each in self._active.values()),
            ended=tuple(self._just_ended),
            queued=len(self._waiting),
            finished=len(self._finished),
            failed=len(self._failed) + len(self._not_started),
            eta_seconds=self._pace.eta(active, self._waiting.iterations, len(self._places)),
            stopping=self._over,
        )


def _clock() -> float:
    """Seconds that also pass while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_held(launch: LaunchDir, entry: Entry) -> bool:
    """Whether a process holds a run's folder; one that can't be read is nobody's."""
    try:
        return RunDir.of(launch.results, entry.key).is_held()
    except OSError:
        return False
