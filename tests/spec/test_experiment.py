"""Experiment files and flags: what they mean, and where their errors point."""

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prove.cli.request import RunRequest
from prove.errors import ProveError
from prove.spec import parse
from prove.spec.experiment import Experiment, experiment_of_flags, read_experiment
from prove.spec.settings import AXES, SETTINGS, values_of_flag

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "x.yaml") -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    return write


def cells(file: Path) -> list[dict[str, Any]]:
    return list(read_experiment(file).cells())


def pairs(experiment: Experiment, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(cell.get(name) for name in names) for cell in experiment.cells()]


# the settings


def test_the_settings_are_the_flags_of_prove_run() -> None:
    fields = {field.name for field in dataclasses.fields(RunRequest)} - {"terms"}
    assert set(SETTINGS) == fields
    assert fields - set(AXES) == {"data_root", "gen_root", "device", "workers", "threads"}


def test_a_setting_takes_what_the_request_takes() -> None:
    """The kinds, against the types of the request's fields."""
    kinds = {"int": {"integer"}, "float": {"number"}, "bool": {"flag"}, "str": {"text", "objective", "size", "folders"}}
    for field in dataclasses.fields(RunRequest):
        if field.name != "terms":
            name = str(field.type).removesuffix(" | None")
            assert SETTINGS[field.name].kind in kinds[name], field.name


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("dataset", "A, B", ("A", "B")),
        ("seed", "0..2", (0, 1, 2)),
        ("seed", "7,0..10..5", (7, 0, 5, 10)),
        ("batch_size", "8,16", (8, 16)),
        ("lr", "1e-4,0.5", (0.0001, 0.5)),
        ("pretrained", "true,False", (True, False)),
        ("crop_size", "512x512,769x0769", ("512x512", "769x769")),
        (
            "loss",
            "ce + 0.3*focal(gamma=2, alpha=none),ce,'ce + lovasz'",
            ("ce + 0.3*focal(gamma=2, alpha=none)", "ce", "ce + lovasz"),
        ),
        ("loss", "ce(class_weight=[1, 2]),ce", ("ce(class_weight=[1, 2])", "ce")),
        ("aux_loss", "None,focal(gamma=3)", ("none", "focal(gamma=3)")),
    ],
)
def test_values_of_a_flag(name: str, text: str, expected: tuple[Any, ...]) -> None:
    values = values_of_flag(name, text)
    assert values == expected
    assert list(map(type, values)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("dataset", "A,,B", "--dataset 'A,,B': a value between commas is missing"),
        ("dataset", "", "a value between commas is missing"),
        ("seed", "4..0", "--seed: seed: the range 4..0 holds nothing"),
        ("seed", "0..1..0", "step is an integer >= 1"),
        ("seed", "0..1.5", "'0..1.5' is no range of integers"),
        ("seed", "0..99999999999", "more than 100,000 values"),
        ("seed", "-1", "seed must be an integer >= 0, not -1"),
        ("seed", "one", "seed must be an integer >= 0, not 'one'"),
        ("batch_size", "0", "--batch-size: batch_size must be an integer >= 1"),
        ("lr", "nan", "lr must be a number > 0"),
        ("lr", "1e999", "lr must be a number > 0"),
        ("lr", "0", "lr must be a number > 0"),
        ("amp", "yes", "amp must be true or false"),
        ("crop_size", "512", "HEIGHTxWIDTH"),
        ("monitor", "mIuO", "Did you mean 'mIoU'"),
        ("loss", "ce + focal(gamma=2", "')' is missing at the end"),
        ("loss", "'ce", '"\'" is missing at the end'),
        ("loss", "ce +", "Malformed objective at column 5"),
    ],
)
def test_a_flag_that_makes_no_sense(name: str, text: str, said: str) -> None:
    with pytest.raises(ProveError) as error:
        values_of_flag(name, text)
    assert said in str(error.value)
    assert f"--{name.replace('_', '-')}" in str(error.value)


def test_flags_make_an_experiment() -> None:
    flags = {"aux_loss": "none,focal", "seed": "0..1", "pretrained": False, "lr": None, "threads": 2, "device": "cpu"}
    experiment = experiment_of_flags(flags, name="mine", launch={"launcher": "local"})
    assert experiment.name == "mine"
    assert experiment.launch["launcher"] == "local"
    fixed = {"threads": 2, "device": "cpu", "pretrained": False}
    assert list(experiment.cells()) == [
        {**fixed, "aux_loss": aux, "seed": seed} for aux in ("none", "focal") for seed in (0, 1)
    ]
    assert all(RunRequest(**cell) for cell in experiment.cells())


@pytest.mark.parametrize(
    ("flags", "name", "said"),
    [
        ({}, None, "Nothing to sweep over"),
        ({"loss": "ce", "aux_loss": "focal"}, None, "--loss and --aux-loss"),
        ({"loss": "ce", "aux_weight": "0.1"}, None, "--loss and --aux-weight"),
        ({"seed": "0"}, "a/b", "can't name an experiment"),
        ({"seed": "0", "device": "gpu"}, None, "--device: Unknown device 'gpu'"),
        ({"seed": "0", "threads": 0}, None, "--threads: threads must be an integer >= 1, not 0"),
    ],
)
def test_flags_that_make_no_experiment(flags: dict[str, Any], name: str | None, said: str) -> None:
    with pytest.raises(ProveError) as error:
        experiment_of_flags(flags, name=name)
    assert said in str(error.value)


# what a file means


def test_a_whole_file(write: Write, tmp_path: Path) -> None:
    write("name: mine", "term.yaml")
    file = write(
        """\
# What it shows.
#   How to run it.

name: demo
terms: term.yaml
matrix:
  model: [m, n]
  aux_loss: [none, focal]
  seed: [0..1, 7]
zip: [{crop_size: [64x64, 96x96], batch_size: [8, 4]}]
exclude: [{model: n, aux_loss: [foc*]}]
include: [{model: big, aux_loss: none, crop_size: 32x32, batch_size: 2, lr: 1e-3}]
overrides:
  - {when: {model: "b*"}, set: {max_iters: 5, threads: 1}}
  - {when: {seed: 7}, set: {max_iters: 9}}
train: {max_iters: 100, lr: 0.5, data_root: {CamVid: sub/camvid}, dataset: CamVid}
launch: {launcher: slurm, time: "12:00:00", directives: {mail-type: END}}
report: {baseline: ce, metric: [mIoU, bIoU], smallest_effect: 0.3}
"""
    )
    experiment = read_experiment(file)
    assert (experiment.name, experiment.file) == ("demo", file)
    assert experiment.description == "What it shows.\nHow to run it."
    assert experiment.terms == (tmp_path / "term.yaml",)
    assert dict(experiment.launch) == {
        "launcher": "slurm", "time": "12:00:00", "directives": {"mail-type": "END"},
    }  # fmt: skip
    assert experiment.report["metric"] == ["mIoU", "bIoU"]
    assert str(experiment.launch.error("time", "too long")) == f"{file}:17:33: too long"
    expected = []
    base = {"max_iters": 100, "lr": 0.5, "dataset": "CamVid", "data_root": str(tmp_path / "sub" / "camvid")}
    for model, aux in (("m", "none"), ("m", "focal"), ("n", "none")):
        for seed in (0, 1, 7):
            for crop, batch in (("64x64", 8), ("96x96", 4)):
                cell = {**base, "model": model, "aux_loss": aux, "seed": seed, "crop_size": crop, "batch_size": batch}
                expected.append({**cell, **({"max_iters": 9} if seed == 7 else {})})
    for seed in (0, 1, 7):
        added = {**base, "model": "big", "aux_loss": "none", "seed": seed, "crop_size": "32x32", "batch_size": 2}
        expected.append({**added, "lr": 0.001, "max_iters": 9 if seed == 7 else 5, "threads": 1})
    assert list(experiment.cells()) == expected
    assert all(RunRequest(**cell) for cell in expected)
    assert experiment.matrix.axes == ("model", "aux_loss", "seed", "crop_size", "batch_size", "lr")


def test_the_name_is_the_files_unless_it_says_otherwise(write: Write) -> None:
    experiment = read_experiment(write("matrix: {seed: 3}\ndescription: It shows this.", "abc.yaml"))
    assert (experiment.name, experiment.description) == ("abc", "It shows this.")
    assert list(experiment.cells()) == [{"seed": 3}]


def test_an_addition_names_what_differs(write: Write) -> None:
    experiment = read_experiment(
        write(
            """\
matrix: {model: [m, n], aux_loss: [none, focal], seed: 0..1}
train: {batch_size: 16}
include:
  - {model: big, aux_loss: none, batch_size: [2, 4]}
  - {model: m, aux_loss: null, loss: ce + dice, batch_size: null}
  - {model: n, aux_loss: focal}
"""
        )
    )
    names = ("model", "aux_loss", "loss", "seed", "batch_size")
    assert pairs(experiment, *names)[8:] == [
        ("big", "none", None, 0, 2),
        ("big", "none", None, 0, 4),
        ("big", "none", None, 1, 2),
        ("big", "none", None, 1, 4),
        ("m", None, "ce + dice", 0, None),
        ("m", None, "ce + dice", 1, None),
    ]


def test_an_addition_has_what_it_names_from_itself(write: Write) -> None:
    file = write(
        """\
matrix: {model: [m], seed: 0}
include: [{model: big, batch_size: [2, 4]}]
overrides: [{when: {model: [m, big]}, set: {batch_size: 8, lr: 0.5}}]
"""
    )
    assert pairs(read_experiment(file), "model", "batch_size", "lr") == [
        ("m", 8, 0.5),
        ("big", 2, 0.5),
        ("big", 4, 0.5),
    ]


def test_additions_can_stand_alone(write: Write) -> None:
    assert cells(write("include: [{model: m, seed: 0..1}, {model: n}]")) == [
        {"model": "m", "seed": 0}, {"model": "m", "seed": 1}, {"model": "n"},
    ]  # fmt: skip


def test_an_included_file_keeps_its_settings(write: Write, tmp_path: Path) -> None:
    write("name: t", "term.yaml")
    other = """\
matrix: {model: [m, n], seed: [0, 1]}
exclude: [{model: n}]
train: {lr: 0.5}
overrides: [{when: {seed: 1}, set: {threads: 1}}]
terms: [term.yaml]
"""
    write(other, "other.yaml")
    experiment = read_experiment(write("matrix: {model: a}\ntrain: {lr: 0.1}\ninclude: [other.yaml, {model: b}]"))
    assert list(experiment.cells()) == [
        {"lr": 0.1, "model": "a"},
        {"lr": 0.5, "model": "m", "seed": 0},
        {"lr": 0.5, "model": "m", "seed": 1, "threads": 1},
        {"lr": 0.1, "model": "b"},
    ]
    assert experiment.train == {"lr": 0.1}
    assert experiment.terms == (tmp_path / "term.yaml",)


def test_the_same_cells_through_two_files_are_there_once(write: Write) -> None:
    write("matrix: {model: [m, n], seed: 0..2}", "other.yaml")
    write("include: [other.yaml, other.yaml]", "twice.yaml")
    file = write("matrix: {seed: 0..1, model: [n]}\ninclude: [twice.yaml, other.yaml]")
    assert pairs(read_experiment(file), "model", "seed") == [
        ("n", 0), ("n", 1), ("m", 0), ("m", 1), ("m", 2), ("n", 2),
    ]  # fmt: skip


def test_a_file_extends_another(write: Write, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    base = """\
# the base
name: base
matrix: {model: [m, n, local.py], aux_loss: [none, focal], seed: 0..1}
exclude: [{model: n}]
train: {lr: 0.5, batch_size: 4, data_root: data}
launch: {launcher: slurm, partition: gpu}
"""
    write(base, "sub/base.yaml")
    file = write(
        """\
extends: sub/base.yaml
matrix: {seed: 5, aux_loss: null, loss: [ce, ce + dice]}
train: {lr: null, batch_size: 8}
launch: {partition: null, gpus: 2}
"""
    )
    experiment = read_experiment(file)
    local = str(tmp_path / "sub" / "local.py")
    fixed = {"batch_size": 8, "data_root": str(tmp_path / "sub" / "data")}
    assert list(experiment.cells()) == [
        {**fixed, "model": model, "loss": loss, "seed": 5} for model in ("m", local) for loss in ("ce", "ce + dice")
    ]
    assert experiment.matrix.axes == ("model", "seed", "loss")
    assert experiment.name == "x"
    assert experiment.description == ""
    assert dict(experiment.launch) == {"launcher": "slurm", "gpus": 2}


def test_a_list_replaces_the_one_it_extends(write: Write) -> None:
    write("matrix: {model: [m, n]}\nexclude: [{model: n}]", "base.yaml")
    assert cells(write("extends: base.yaml\nexclude: []")) == [{"model": "m"}, {"model": "n"}]


def test_paths_count_from_the_file(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = write(
        """\
matrix: {model: [nets/a.py, b], dataset: [./d.yaml, ~/e.yaml]}
train: {batch_size: 4}
overrides: [{when: {model: nets/a.py}, set: {batch_size: 2}}, {when: {model: "*.py"}, set: {lr: 1}}]
"""
    )
    monkeypatch.chdir(tmp_path.parent)
    relative = Path(os.path.relpath(file))
    for each in (file, relative):
        assert pairs(read_experiment(each), "model", "dataset", "batch_size", "lr") == [
            (str(tmp_path / "nets" / "a.py"), str(tmp_path / "d.yaml"), 2, 1.0),
            (str(tmp_path / "nets" / "a.py"), str(tmp_path / "home" / "e.yaml"), 2, 1.0),
            ("b", str(tmp_path / "d.yaml"), 4, None),
            ("b", str(tmp_path / "home" / "e.yaml"), 4, None),
        ]


def test_a_folder_for_each_dataset(write: Write) -> None:
    file = write("matrix: {dataset: [A, B, C]}\ntrain: {data_root: {A: /a, B: /b}}")
    assert pairs(read_experiment(file), "dataset", "data_root") == [("A", "/a"), ("B", "/b"), ("C", None)]
    assert all("data_root" not in cell for cell in cells(file) if cell["dataset"] == "C")


def test_an_override_takes_a_fixed_setting_away(write: Write) -> None:
    file = write(
        """\
matrix: {model: [m, n]}
train: {aux_loss: focal}
overrides: [{when: {model: n}, set: {aux_loss: null, loss: ce}}]
"""
    )
    assert cells(file) == [{"aux_loss": "focal", "model": "m"}, {"model": "n", "loss": "ce"}]


def test_aliases_and_merges(write: Write) -> None:
    file = write(
        """\
matrix: &axes {model: &models [m, n], seed: 0}
include:
  - {<<: *axes, seed: 1}
  - {<<: [{seed: 2}, *axes], model: *models}
"""
    )
    assert pairs(read_experiment(file), "model", "seed") == [(m, s) for s in (0, 1, 2) for m in ("m", "n")]


def test_every_value_knows_its_place(write: Write) -> None:
    file = write(
        """\
matrix:
  model: [m, segfomer]
  seed: 0..1
train: {batch_size: 16}
overrides: [{when: {seed: 1}, set: {lr: 0.5}}]
"""
    )
    experiment = read_experiment(file)
    places = {(name, value): (place.line, place.column) for name, value, place in experiment.values() if place}
    assert places == {
        ("model", "m"): (2, 11), ("model", "segfomer"): (2, 14), ("seed", 0): (3, 9), ("seed", 1): (3, 9),
        ("batch_size", 16): (4, 21), ("lr", 0.5): (5, 41),
    }  # fmt: skip
    error = experiment.error("model", "segfomer", ProveError("Unknown model.", hint="Sorry."))
    assert str(error) == f"{file}:2:14: Unknown model.\nSorry."
    unplaced = ProveError("Unknown.")
    assert experiment_of_flags({"seed": "0"}).error("seed", 0, unplaced) is unplaced


# errors

BAD: list[tuple[str, str, str]] = [
    # YAML itself
    ("matrix: {seed: [0, 1}", "1:21", "not valid YAML"),
    ("matrix:\n\tseed: 0", "2:1", "not valid YAML"),
    ("a: 1\n---\nb: 2", "2:1", "not valid YAML"),
    ("matrix: {seed: 0}\nname: a\x07b", "2:8", "can't stand in it"),
    ("matrix: *nobody", "1:9", "not valid YAML: found undefined alias"),
    ("- matrix", "1:1", "must be a mapping of keys to values, not a list"),
    ("just text", "1:1", "not 'just text'"),
    ("matrix: {seed: 0}\nmatrix: {seed: 1}", "2:1", "'matrix' stands twice"),
    ("matrix: {seed: 0, seed: 1}", "1:19", "'seed' stands twice"),
    ("matrix: {on: 1}", "1:10", "'on' is not text to YAML"),
    ("? [a]\n: 1", "1:3", "this key is not text"),
    ("matrix: &a {seed: *a}", "1:9", "contains itself"),
    ("matrix: !!python/name:os.system {}", "1:9", "tag"),
    ("matrix: !mine {}", "1:9", "the tag !mine has no meaning"),
    ("matrix: {seed: !!int x}", "1:16", "can't read 'x'"),
    ("<<: [1]", "1:6", "'<<' merges mappings"),
    # what YAML reads otherwise than it looks
    ("matrix: {seed: 010}", "1:16", "YAML reads 010 as the number 8"),
    ("matrix: {seed: 0x10}", "1:16", "YAML reads 0x10 as the number 16"),
    ("matrix: {seed: 0}\nlaunch: {time: 12:00:00}", "2:16", "YAML reads 12:00:00 as the number 43200"),
    ("matrix: {seed: 0}\nname: 2024-01-02", "2:7", "as a date"),
    ("matrix: {seed: 2024-13-02}", "1:16", "can't read '2024-13-02'"),
    ("matrix: {loss: no}", "1:16", "YAML takes no for false"),
    ("matrix: {aux_loss: no}", "1:20", "For no auxiliary loss write none"),
    ("matrix: {aux_loss: [null, focal]}", "1:21", "For no auxiliary loss write none"),
    ("matrix: {aux_loss: }", "1:19", "For no auxiliary loss write none"),
    ("matrix: {seed: 0}\ntrain: {lr: null}", "2:13", "Leave lr out for its default"),
    ("matrix: {dataset: 2024}", "1:19", 'put it in quotes: "2024"'),
    ('matrix: {seed: "3"}', "1:16", "Write it without quotes"),
    ("name: 7\nmatrix: {seed: 0}", "1:7", "name must be text, not the number 7"),
    # keys
    ("matrx: {seed: 0}", "1:1", "Unknown key 'matrx' in the experiment.\nDid you mean 'matrix'?"),
    ("matrix: {seed: 0}\nname: a/b", "2:7", "'a/b' can't name an experiment"),
    ("matrix: {seed: 0}\nname: ..", "2:7", "can't name an experiment"),
    ("matrix: {seed: 0}\nname: " + "a" * 65, "2:7", "can't name an experiment"),
    ("matrix: [seed]", "1:9", "matrix must be a mapping, not a list"),
    ("matrix: {modle: m}", "1:10", "Did you mean 'model'?"),
    ("matrix: {data_root: /d}", "1:10", "data_root says how a job runs"),
    ("matrix: {seed: 0}\nlaunch: 3", "2:9", "launch must be a mapping"),
    ("train: {seed: 0}", "1:1", "The experiment has no matrix"),
    ("matrix: {}", "1:9", "The matrix has no axis"),
    # values
    ("matrix: {seed: []}", "1:16", "seed has no value"),
    ("matrix: {seed: [0, x]}", "1:20", "seed must be an integer >= 0, not 'x'"),
    ("matrix: {seed: 1.5}", "1:16", "not the number 1.5"),
    ("matrix: {seed: [[0]]}", "1:17", "seed takes one value here, not a list"),
    ("matrix: {seed: 1" + "0" * 400 + "}", "1:16", "seed must be an integer"),
    ("matrix: {lr: 1" + "0" * 400 + "}", "1:14", "lr must be a number"),
    ("matrix: {seed: 9" + "0" * 5000 + "}", "1:16", "YAML can't read"),
    ("matrix: {seed: 2147483648}", "1:16", "seed must be less than 2**31"),
    ("matrix: {seed: 2147483640..2147483650}", "1:16", "seed must be less than 2**31"),
    ('matrix: {amp: "true"}', "1:15", "Write it without quotes"),
    ("matrix: {seed: {a: 1}}", "1:16", "not a mapping"),
    ("matrix: {seed: 4..0}", "1:16", "Write 0..4"),
    ("matrix: {seed: -2..0}", "1:16", "seed must be an integer >= 0, not -2"),
    ("matrix: {lr: 0..4}", "1:14", "lr must be a number > 0, not '0..4'"),
    ("matrix: {lr: [.nan]}", "1:15", "lr must be a number > 0, not the number nan"),
    ("matrix: {amp: 1}", "1:15", "amp must be true or false, not the number 1"),
    ("matrix: {crop_size: 512}", "1:21", "Write 512x512"),
    ("matrix: {crop_size: 512*512}", "1:21", "HEIGHTxWIDTH"),
    ("matrix: {monitor: mIuO}", "1:19", "Did you mean 'mIoU'"),
    ('matrix: {loss: ["ce", "ce + 0.3 focal"]}', "1:23", "Malformed objective at column 10"),
    ('matrix: {model: ""}', "1:17", "not an empty text"),
    ("matrix: {seed: 0}\ntrain: {device: gpu}", "2:17", "Unknown device 'gpu'"),
    ("matrix: {seed: 0}\ntrain: {lr: [0.1, 0.2]}", "2:13", "Several values make an axis"),
    ("matrix: {seed: 0}\ntrain: {data_root: {A: 3}}", "2:20", "data_root must be a folder"),
    # axes that collide
    ("matrix: {seed: 0}\ntrain: {seed: 1}", "1:10", "seed stands in train already"),
    ("matrix: {seed: 0}\nzip: [{model: [a], seed: [1]}]", "2:20", "seed stands in matrix already"),
    ("zip: [{model: [a], seed: [1]}, {seed: [1], lr: [1]}]", "1:33", "seed stands in zip already"),
    ("zip: [{model: [a, b], seed: [1]}]", "1:7", "model has 2, seed has 1"),
    ("zip: {model: [a]}", "1:6", "zip must be a list"),
    ("matrix: {loss: ce, aux_loss: focal}", "1:20", "two ways to say"),
    ("matrix: {loss: ce}\ntrain: {aux_weight: 0.5}", "2:9", "loss and aux_weight are two ways"),
    ("matrix: {aux_loss: focal}\ninclude: [{loss: ce}]", "2:11", "aux_loss: null"),
    ("matrix: {seed: 0}\ninclude: [{aux_loss: null}]", "2:22", "null takes a setting away, and there is none"),
    ("matrix: {seed: 0}\ninclude: [{}]", "2:11", "adds nothing"),
    ("matrix: {seed: 0}\ninclude: [{threads: 1}]", "2:12", "threads says how a job runs"),
    ("zip: [{model: [a], seed: [1]}]\ninclude: [{model: b}]", "2:12", "model is zipped with seed"),
    ("matrix: {seed: 0}\ninclude: {seed: 1}", "2:10", "include must be a list"),
    # filters
    ("matrix: {seed: 0}\nexclude: [{sed: 0}]", "2:12", "exclude names 'sed', which is neither"),
    ("matrix: {seed: 0}\nexclude: [{lr: 0.1}]", "2:12", "Valid here: seed"),
    ("matrix: {seed: 0}\nexclude: [{seed: 1}]", "2:18", "no cell has the seed 1"),
    ("matrix: {seed: 0}\nexclude: [{seed: true}]", "2:18", "seed must be an integer"),
    ("matrix: {model: [segformer, b]}\nexclude: [{model: segfomer}]", "2:19", "Did you mean 'segformer'?"),
    ("matrix: {model: [segformer]}\nexclude: [{model: [seg*, deep*]}]", "2:26", "no cell has the model 'deep*'"),
    ("matrix: {model: [a]}\nexclude: [{model: []}]", "2:19", "model has no value"),
    ("matrix: {seed: 0}\nexclude: [{}]", "2:11", "it would mean every cell"),
    ("matrix: {seed: 0}\nexclude: {seed: 0}", "2:10", "exclude must be a list"),
    ("zip: [{model: [a, b], seed: [0, 1]}]\nexclude: [{model: a, seed: 1}]", "2:11", "no cell has all of this at once"),
    ("include: [{seed: 0}]\nexclude: [{seed: 0}]", "2:1", "there is no matrix"),
    # overrides
    ("matrix: {seed: 0}\noverrides: [{when: {seed: 0}}]", "2:13", "has no 'set'"),
    ("matrix: {seed: 0}\noverrides: [{set: {lr: 1}}]", "2:13", "has no 'when'"),
    ("matrix: {seed: 0}\noverrides: [{when: {seed: 0}, set: {}}]", "2:36", "sets nothing"),
    ("matrix: {seed: 0}\noverrides: [{when: {seed: 0}, set: {seed: 1}}]", "2:37", "two cells could become one"),
    ("matrix: {seed: 0}\noverrides: [{when: {seed: 1}, set: {lr: 1}}]", "2:27", "when: no cell has the seed 1"),
    ("matrix: {seed: 0}\noverrides: [{when: {seed: 0}, set: {lr: null}}]", "2:41", "train has none"),
    ("matrix: {seed: 0}\noverrides: [{when: {seed: 0}, set: {lr: fast}}]", "2:41", "lr must be a number"),
    ("matrix: {seed: 0}\noverrides: [{when: {seed: 0}, sets: {lr: 1}}]", "2:31", "Did you mean 'set'?"),
    ("matrix: {loss: ce}\noverrides: [{when: {loss: ce}, set: {aux_loss: dice}}]", "2:48", "two ways"),
    # other files
    ("extends: nothing.yaml", "1:10", "there is no file"),
    ("extends: other.txt", "1:10", "is no YAML file"),
    ("extends: x.yaml", "1:10", "circle: x.yaml -> x.yaml"),
    ("include: [x.yaml]", "1:11", "circle: x.yaml -> x.yaml"),
    ("include: [nothing.yaml]", "1:11", "there is no file"),
    ("matrix: {seed: 0}\nterms: [t.yaml]", "2:9", "there is no file"),
    ("matrix: {seed: 0}\nterms: [3]", "2:9", "terms must be text"),
    # the report
    ("matrix: {seed: 0}\nreport: {baseline: 3}", "2:20", "baseline must be the text"),
    ("matrix: {seed: 0}\nreport: {metric: []}", "2:18", "metric must be a name"),
    ("matrix: {seed: 0}\nreport: {smallest_effect: 0}", "2:27", "smallest_effect must be a number > 0"),
    ("matrix: {seed: 0}\nreport: {baselin: ce}", "2:19", "Did you mean 'baseline'"),
    ("matrix: {seed: 0}\nreport: {metric: mIuO}", "2:18", "Did you mean 'mIoU'"),
    ("matrix: {seed: 0}\nreport: {baseline: ce +}", "2:20", "ce +"),
    ("matrix: {seed: 0}\nreport: {hypotheses: x}", "2:22", "hypotheses must be"),
]


@pytest.mark.parametrize(("text", "position", "said"), BAD)
def test_an_error_points_at_its_cause(write: Write, text: str, position: str, said: str) -> None:
    file = write(text)
    with pytest.raises(ProveError) as error:
        read_experiment(file)
    assert str(error.value).startswith(f"{file}:{position}: ")
    assert said in str(error.value)


def test_an_error_in_another_file_points_there(write: Write, tmp_path: Path) -> None:
    base = write("matrix: {model: [m, n]}\nexclude: [{model: n}]", "base.yaml")
    with pytest.raises(ProveError, match=r"base.yaml:2:19: exclude: no cell has the model 'n'") as error:
        read_experiment(write("extends: base.yaml\nmatrix: {model: m}"))
    assert str(base) in error.value.message
    assert "It comes from base.yaml" in error.value.hint
    write("matrix: {sede: 1}", "bad.yaml")
    with pytest.raises(ProveError, match=r"bad.yaml:1:10: Unknown key 'sede'"):
        read_experiment(write("include: [bad.yaml]"))


def test_a_circle_of_files_is_named(write: Write) -> None:
    write("include: [b.yaml]", "a.yaml")
    write("extends: c.yaml", "b.yaml")
    write("matrix: {seed: 0}\ninclude: [a.yaml]", "c.yaml")
    with pytest.raises(ProveError, match=r"c.yaml:2:11: .* circle: a.yaml -> b.yaml -> a.yaml"):
        read_experiment(write("include: [a.yaml]"))


def test_files_that_can_not_be_read(write: Write, tmp_path: Path) -> None:
    binary, empty, comments = tmp_path / "b.yaml", write("  \n", "e.yaml"), write("# only\n", "c.yaml")
    binary.write_bytes(b"\xff\xfe\x00matrix")
    large = write("#" * (4 * 2**20 + 1), "large.yaml")
    for file, said in [
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (binary, "is not UTF-8 text"),
        (empty, "is empty"),
        (comments, "nothing but comments"),
        (large, "larger than 4 MiB"),
    ]:
        with pytest.raises(ProveError) as error:
            read_experiment(file)
        assert said in str(error.value)
        assert str(file) in str(error.value)
        assert "\n" not in error.value.message


def test_a_stem_that_can_not_be_a_name(write: Write) -> None:
    with pytest.raises(ProveError, match="Add a name to the file"):
        read_experiment(write("matrix: {seed: 0}", "my study.yaml"))


def test_a_bomb_of_aliases_is_refused(write: Write) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    with pytest.raises(ProveError, match="stands for more than"):
        read_experiment(write("\n".join(rows)))
    with pytest.raises(ProveError, match="too deeply"):
        read_experiment(write("matrix: " + "[" * 20_000))


def test_files_that_double_are_refused(write: Write) -> None:
    """Each includes the one before it twice: 2**40 blocks, if nobody stopped it."""
    write("matrix: {seed: 0}", "f0.yaml")
    for k in range(1, 41):
        write(f"include: [f{k - 1}.yaml, f{k - 1}.yaml]", f"f{k}.yaml")
    with pytest.raises(ProveError, match="more than 10,000 additions"):
        read_experiment(write("include: [f40.yaml]"))


SEED_TEXT = """\
matrix: {model: [m, n], aux_loss: [none, focal], seed: 0..2}
zip: [{crop_size: [64x64, 96x96], batch_size: [8, 4]}]
exclude: [{model: n, aux_loss: [foc*]}]
include: [{model: big, lr: 1e-3, aux_loss: null}, other.yaml]
overrides: [{when: {model: "b*"}, set: {max_iters: 5}}]
train: {max_iters: 100, lr: 0.5, data_root: {A: a}}
launch: {time: "1:00"}
report: {baseline: ce}
"""


@settings(
    deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SEED_TEXT)),
            st.integers(0, 6),
            st.sampled_from([*"[]{}:,&*!|>'\"#%@`?-<~\n\t 0", "..", "null", "&a", "*a", "true", "<<: ", "model", "- "]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_damage_makes_a_traceback(write: Write, edits: list[tuple[int, int, str]]) -> None:
    write("matrix: {seed: 0}", "other.yaml")
    text = SEED_TEXT
    for at, length, new in edits:
        text = text[:at] + new + text[at + length :]
    file = write(text)
    said = str(file)
    try:
        experiment = read_experiment(file)
        assert all(isinstance(cell, dict) for cell in itertools.islice(experiment.cells(), 1000))
    except ProveError as error:
        said = str(error)
    assert str(file) in said


# what is shipped


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_shipped_experiment(file: Path) -> None:
    from prove.catalog.losses import from_aux, resolve
    from prove.catalog.models import MODELS
    from prove.catalog.strategies import resolve_strategy
    from prove.data.definition import resolve_dataset

    experiment = read_experiment(file)
    assert experiment.name == file.stem
    assert f"prove sweep experiments/{file.name}" in experiment.description
    check: dict[str, Callable[[Any], object]] = {
        "dataset": resolve_dataset, "model": MODELS.get, "strategy": resolve_strategy, "aux_loss": from_aux,
        "loss": lambda text: resolve(parse(text)),
    }  # fmt: skip
    for name, value, _ in experiment.values():
        check.get(name, str)(value)
    assert all(RunRequest(**cell) for cell in experiment.cells())


def test_the_shipped_experiments_have_the_cells_that_their_comments_name() -> None:
    count = {file.stem: len(cells(file)) for file in (ROOT / "experiments").glob("*.yaml")}
    assert count == {"quickstart": 12, "loss_ablation": 72, "aux_weight": 39, "camvid": 30, "domain_shift": 24,
                     "strategies": 63, "mask_losses": 54}  # fmt: skip


def test_reading_needs_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; import prove.spec.experiment as e\n"
        "assert 'yaml' not in sys.modules\n"
        "e.read_experiment(Path(sys.argv[1]))\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'sqlalchemy', 'prove.catalog'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    file = ROOT / "experiments" / "quickstart.yaml"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
