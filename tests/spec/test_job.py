import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.errors import ProveError
from prove.spec import EarlyStop, Job, LossExpr, LossTerm, ModelRef, TrainSettings, WeightSchedule
from prove.spec.canonical import canonical_json
from prove.spec.job import Definition
from tests.journal import make_job

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def shuffled(value: Any) -> Any:
    """The same data, spelt differently: keys reversed, lists as tuples, whole floats as ints and back."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return tuple(shuffled(item) for item in value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return float(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.dictionaries(st.text(max_size=5), PLAIN, max_size=4))
def test_the_key_does_not_depend_on_the_spelling(fields: dict[str, Any]) -> None:
    dataset = {"name": "D", **fields}
    one, other = make_job(dataset=dataset), make_job(dataset=shuffled(dataset))
    assert one.key == other.key
    read_back = Job.from_dict(json.loads(canonical_json(one.to_dict())))
    assert read_back.key == one.key
    assert read_back.to_dict() == one.to_dict()
    identity = one.to_dict()
    assert one.canonical == canonical_json(identity)
    assert one.key == hashlib.sha256(one.canonical.encode()).hexdigest()[:12]


def test_a_config_file_counts_by_its_content() -> None:
    one, other = make_job(model=ModelRef("mine", "0" * 64)), make_job(model=ModelRef("renamed", "0" * 64))
    assert one.key == other.key
    assert one.canonical == canonical_json(one.to_dict()) != other.canonical
    identity = one.to_dict()
    del identity["model"]["name"]
    assert one.key == hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:12]


def test_a_definition_with_its_text_is_the_same_dataset() -> None:
    fields = {"name": "D", "classes": ["a", "b"], "ignore_index": 255.0}
    assert make_job(dataset=Definition(fields)).key == make_job(dataset=fields).key


def test_reading_back_is_the_identity() -> None:
    loss = LossExpr(
        (
            LossTerm("ce", params=(("class_weight", (1, 2.5)),)),
            LossTerm("lovasz", WeightSchedule("cosine", 0.5, 0.1, 0.2, 0.9), (("classes", "all"), ("per_image", True))),
        )
    )
    job = make_job(loss=loss, strategy="baseline", train=replace(make_job().train, early_stop=None))
    read = Job.from_dict(json.loads(json.dumps(job.to_dict())))
    assert read == job
    assert read.to_dict() == job.to_dict()
    stopping = make_job(train=replace(make_job().train, early_stop=EarlyStop("val/mAcc", 3, 0.2)))
    assert Job.from_dict(stopping.to_dict()) == stopping


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    change=st.sampled_from(
        [
            {"seed": 1},
            {"strategy": "other"},
            {"loss": LossExpr((LossTerm("ce"),))},
            {"train": TrainSettings(41, 2, (64, 64), 0.01, 10)},
            {"train": TrainSettings(40, 2, (64, 96), 0.01, 10)},
            {"train": TrainSettings(40, 2, (64, 64), 0.01, 10, early_stop=None)},
            {"train": TrainSettings(40, 2, (64, 64), 0.01, 10, amp=False)},
            {"dataset": {"name": "SynthStreet", "classes": ["rider", "road"], "ignore_index": 255}},
        ]
    )
)
def test_every_field_is_part_of_the_key(change: dict[str, Any]) -> None:
    assert make_job(**change).key != make_job().key


def test_the_key_of_whole_weights() -> None:
    def key(weight: float) -> str:
        return make_job(loss=LossExpr((LossTerm("ce", WeightSchedule(first=weight, last=weight)),))).key

    assert key(2) == key(2.0)
    assert key(2) != key(2.5)


def test_the_key_is_the_hash_of_the_canonical_text_in_any_process() -> None:
    job = make_job()
    text = json.dumps(job.to_dict(), sort_keys=True, separators=(",", ":"))
    assert job.key == hashlib.sha256(text.encode()).hexdigest()[:12]
    code = "import json, sys; from prove.spec import Job; print(Job.from_dict(json.loads(sys.argv[1])).key)"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, text],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == job.key


def test_a_config_file_counts_by_its_content_not_its_name() -> None:
    one, other = (make_job(model=ModelRef(name, "a" * 64)) for name in ("mine", "renamed"))
    assert one.key == other.key
    assert make_job(model=ModelRef("mine", "b" * 64)).key != one.key
    assert make_job(model=ModelRef("fcn_tiny")).key != make_job(model=ModelRef("hrnet_hr48")).key
    assert Job.from_dict(one.to_dict()) == one
    assert Job.from_dict(one.to_dict()).model.name == "mine"


def test_another_schema_is_refused() -> None:
    with pytest.raises(ProveError, match="schema 99"):
        Job.from_dict({**make_job().to_dict(), "schema": 99})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_iters": 0}, "max_iters"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": 0.0}, "lr"),
        ({"eval_interval": 41}, "eval_interval"),
        ({"crop_size": (64, 16)}, "crop_size"),
    ],
)
def test_impossible_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProveError, match=message):
        replace(make_job().train, **change)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": "val/mIuO"}, "'mIoU'"),
        ({"monitor": "ECE"}, "metric to monitor"),
        ({"patience": 0}, "patience"),
        ({"min_delta": 0.0}, "min_delta"),
        ({"min_delta": float("inf")}, "min_delta"),
    ],
)
def test_impossible_early_stopping(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ProveError, match=message):
        EarlyStop(**settings)


def test_seeds_are_not_negative() -> None:
    with pytest.raises(ProveError, match="seed is -1"):
        make_job(seed=-1)
