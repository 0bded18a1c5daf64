"""A study read from a real results folder: numbers, labels, curves, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from prove.errors import ProveError
from prove.metrics import summarize_arrays
from prove.report.opening import Asked, open_study
from prove.report.study import Measure
from prove.rundir import RunDir
from prove.store import Store
from tests.report.campaign import CLASSES, CONDITIONS, LOSSES, Cell, campaign, counts

SKILL = {"ce": 0.70, "ce + 0.3*focal": 0.75, "ce + 0.3*lovasz": 0.80}


def plain(loss: str, seed: int) -> Cell:
    return Cell(skill=SKILL.get(loss, 0.6) + 0.002 * seed)


@pytest.fixture
def store(tmp_path: Path):
    campaign(tmp_path, plain, report={"smallest_effect": 0.7, "metric": ["bF1", "mIoU"]})
    with Store.open_existing(tmp_path) as opened:
        opened.refresh()
        yield opened


def test_every_number_is_what_the_kept_counts_say(store: Store, tmp_path: Path) -> None:
    study, _ = open_study(store, Asked())
    (block,) = study.blocks
    assert block.losses == LOSSES
    for i, loss in enumerate(LOSSES):
        for j, seed in enumerate(block.seeds):
            with np.load(RunDir.of(tmp_path, block.runs[loss, seed].key).confusion) as arrays:
                found = summarize_arrays(arrays)
            assert study.values(block, Measure("mIoU"))[i, j] == pytest.approx(found.metrics["mIoU"], abs=1e-12)
            iou = study.values(block, Measure("IoU", "class", "pole"))[i, j]
            assert iou == pytest.approx(found.per_class["IoU"][2], abs=1e-12)
            night = study.values(block, Measure("bF1", "condition", "night"))[i, j]
            assert night == pytest.approx(found.conditions["night"].metrics["bF1"], abs=1e-12)


def test_the_best_checkpoint_is_read_where_it_is_asked_for(store: Store) -> None:
    study, _ = open_study(store, Asked(checkpoint="best", metrics=("mIoU",)))
    assert np.isfinite(study.values(study.blocks[0], Measure("mIoU"))).all()
    assert study.options.checkpoint == "best"


def test_the_experiments_own_section_counts_without_its_file(store: Store) -> None:
    study, found = open_study(store, Asked("study"))
    assert study.options.smallest_effect == 0.7
    assert study.options.metrics == ("bF1", "mIoU")
    assert found.name == "study"


def test_classes_stand_in_the_datasets_order_and_conditions_by_name(store: Store) -> None:
    study, _ = open_study(store, Asked())
    (block,) = study.blocks
    assert study.names("class", block) == CLASSES
    assert study.names("condition", block) == CONDITIONS
    expected = counts("", 0.5)["confusion"].sum((0, 2))
    assert [study.support(block)[name] for name in CLASSES] == expected.tolist()


def test_replicates_are_about_the_value_and_kept(store: Store) -> None:
    told: list[int] = []
    study, _ = open_study(store, Asked(), on_progress=lambda done, of: told.append(of))
    (block,) = study.blocks
    drawn = study.replicates(block, Measure("mIoU"))
    assert drawn is not None
    assert drawn.shape[:2] == (3, 3)
    assert np.abs(drawn.mean(-1) - study.values(block, Measure("mIoU"))).max() < 0.2
    assert told
    told.clear()
    again, _ = open_study(store, Asked(), on_progress=lambda done, of: told.append(of))
    assert np.array_equal(again.replicates(again.blocks[0], Measure("mIoU")), drawn)
    assert not told


def test_without_counts_of_one_run_there_are_no_replicates(store: Store, tmp_path: Path) -> None:
    study, _ = open_study(store, Asked())
    (block,) = study.blocks
    study.folder(block.runs["ce", 1]).confusion.unlink()
    assert study.replicates(block, Measure("aAcc")) is None
    effect = study.compare(block, Measure("aAcc")).effects[0]
    assert effect.basis == "seeds"


def test_curves_and_hours(store: Store) -> None:
    study, _ = open_study(store, Asked())
    run = study.blocks[0].runs["ce", 0]
    assert [iteration for iteration, _ in study.curve(run, "val")] == [10, 20, 30, 40]
    assert study.curve(run, "train")[0][1]["weights"] == {"ce": 1.0}
    assert study.hours(run) == (0.0, pytest.approx(50 / 3600))
    assert study.evidence(run)["ok"] is True


def test_two_objectives_of_one_text_are_told_apart(tmp_path: Path) -> None:
    campaign(tmp_path, plain, losses=("ce", "ce + 0.3*focal"))
    with Store.open_existing(tmp_path) as store:
        store.refresh()
        # as where own code behind a term was changed: the text is the same, the job is not
        job = store.connection.query("SELECT job FROM runs WHERE loss <> 'ce' ORDER BY id LIMIT 1")[0][0]
        changed = job.replace('"gamma":2', '"gamma":5')
        assert changed != job
        with store.connection.writing():
            store.connection.execute("UPDATE runs SET job = :new WHERE job = :old", {"new": changed, "old": job})
        study, _ = open_study(store, Asked())
    labels = {run.loss for run in study.runs}
    assert labels == {"ce", "ce + 0.3*focal [focal.gamma 2]", "ce + 0.3*focal [focal.gamma 5]"}


def refused(results: Path, **asked: object) -> str:
    with Store.open_existing(results) as store:
        store.refresh()
        with pytest.raises(ProveError) as error:
            open_study(store, Asked(**asked))
    return str(error.value)


@pytest.mark.parametrize(
    ("cell", "losses", "seeds", "said"),
    [
        (Cell(state="failed"), LOSSES, range(3), "9 failed (9 diverged)"),
        (Cell(state="planned"), LOSSES, range(3), "9 planned"),
        (Cell(metrics={"mIoU": None}), LOSSES, range(3), "undefined (NaN) in all 9"),
        (Cell(), ("ce",), range(1), "nothing to compare it with"),
        (Cell(), ("ce",), range(3), "same objective"),
        (Cell(), LOSSES[1:], range(3), "No run has the baseline 'ce'"),
    ],
)
def test_where_there_is_nothing_to_compare_it_says_what_to_do(tmp_path, cell, losses, seeds, said) -> None:
    campaign(tmp_path, lambda loss, seed: cell, losses=losses, seeds=seeds)
    message = refused(tmp_path)
    assert said in message
    assert "\n" in message  # a hint follows


def test_a_baseline_that_failed_everywhere(tmp_path: Path) -> None:
    campaign(tmp_path, lambda loss, seed: Cell(state="failed" if loss == "ce" else "finished"))
    assert "3 failed" in refused(tmp_path)


def test_unknown_names_are_refused_with_the_nearest(tmp_path: Path) -> None:
    campaign(tmp_path, plain)
    assert "'study'" in refused(tmp_path, experiment="stduy")
    assert "'mIoU'" in refused(tmp_path, metrics=("mIOUU",))
    assert "ce + 0.3*focal" in refused(tmp_path, baseline="ce + 0.7*focal")


def test_all_runs_are_compared_where_several_experiments_share_a_folder(tmp_path: Path) -> None:
    campaign(tmp_path, plain, losses=LOSSES[:2], experiment="one")
    campaign(tmp_path, plain, losses=(LOSSES[0], LOSSES[2]), experiment="two")
    with Store.open_existing(tmp_path) as store:
        store.refresh()
        both, found = open_study(store, Asked())
        one, _ = open_study(store, Asked("one"))
    assert found.name is None
    assert both.blocks[0].losses == LOSSES
    assert one.blocks[0].losses == LOSSES[:2]


def test_runs_of_which_nothing_is_recorded_are_compared_and_it_says_so(tmp_path: Path) -> None:
    campaign(tmp_path, lambda loss, seed: Cell(SKILL[loss], environment=None))
    with Store.open_existing(tmp_path) as store:
        store.refresh()
        study, _ = open_study(store, Asked())
        assert len(study.blocks[0].runs) == 9
        assert "neither code, data nor libraries" in study.notes[0]


def test_looking_again_after_more_runs_is_counted_and_said(tmp_path: Path) -> None:
    def looked(**asked: object) -> tuple[str, ...]:
        with Store.open_existing(tmp_path) as store:
            store.refresh()
            study, _ = open_study(store, Asked(**asked))
            study.look()
            return study.notes

    campaign(tmp_path, plain, seeds=range(2))
    assert looked() == looked() == ()  # the same runs again are no new look
    campaign(tmp_path, plain, seeds=range(4))
    assert looked(allow_mixed=True) == looked()  # other flags are no new look
    assert "read 2 times with other runs finished (6, 12 of them)" in looked()[0]
    assert looked(metrics=("bF1",)) == ()  # each headline metric has looks of its own


def test_a_database_that_was_built_again_from_the_run_folders_says_the_same(tmp_path: Path) -> None:
    campaign(tmp_path, plain)
    with Store.open_existing(tmp_path) as store:
        store.refresh()
        before, _ = open_study(store, Asked())
        (block,) = before.blocks
        first = before.compare(block, Measure())
    for file in tmp_path.glob("prove.db*"):
        file.unlink()
    with Store.open(tmp_path) as store:
        store.refresh()
        after, _ = open_study(store, Asked())
        (block,) = after.blocks
        again = after.compare(block, Measure())
    found = {effect.loss: effect.delta for effect in again.effects}
    assert found == {effect.loss: pytest.approx(effect.delta, abs=1e-12) for effect in first.effects}
