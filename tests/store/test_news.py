"""The quick way through rows of training reports says what the fold says of each event."""

import json
from functools import reduce

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prove.spec.event import encode
from prove.store.fold import MALFORMED, Progress, advance
from prove.store.news import News
from tests.journal import event, failed, finished, interrupted, started, train, validated, whole_life


class OneByOne(News):
    """Takes every event by the fold."""

    def _known_to_run(self) -> None:
        return None


def compact(each: dict) -> bytes:
    return encode(each).rstrip(b"\n")


def spaced(each: dict) -> bytes:
    return json.dumps({"time": each["time"], **each}).encode() + b"\r"


EVENTS = st.one_of(
    st.builds(train, st.integers(0, 40), st.sampled_from([1, 1, 1, 2, 3]), st.floats(0, 9)),
    st.builds(train, st.integers(0, 40), st.just(1)),
    st.builds(lambda each, at: {**each, "time": at}, st.just(train(7)), st.floats(-10, 1e10)),
    st.builds(started, st.floats(0, 99), st.sampled_from([1, 2, 3]), st.sampled_from([0, 5])),
    st.builds(validated, st.integers(0, 40), st.floats(0, 100), st.sampled_from([1, 2])),
    st.builds(finished, st.floats(0, 99), st.sampled_from([1, 2])),
    st.builds(failed, st.floats(0, 99), st.sampled_from([1, 2])),
    st.builds(interrupted, st.floats(0, 99), st.sampled_from([1, 2])),
    st.sampled_from(
        [
            event("wired", evidence={"ok": True}),
            event("sang"),
            {**train(5), "attempt": True},
            {**train(5), "attempt": 1.0},
            {**train(5), "attempt": 0},
            {**train(5), "iteration": None},
            {**train(5), "iteration": -1},
            {**train(5), "time": "noon"},
            {**train(5), "classes": {"road": 1.0}},
            {**train(5), "note": "naïve"},
        ]
    ),
)

LINES = st.lists(
    st.one_of(
        st.builds(compact, EVENTS),
        st.builds(compact, EVENTS),
        st.builds(spaced, EVENTS),
        st.sampled_from([b"", b"[1]", b"null", b'"text"', b'{"kind": "train"', compact(train(5)) + b" 7"]),
    ),
    max_size=25,
)


def taken(news: News, lines: list[bytes], pauses: bool = False) -> News:
    for line in lines:
        try:
            news.take(line)
        except MALFORMED:
            continue
        if pauses:
            news.catch_up()
    news.catch_up()
    return news


def told(news: News) -> tuple:
    curves = {place: json.loads(payload) for place, payload in news.curves.items()}
    said = (news.progress, news.attempts, news.touched, news.results, news.evidence, news.restarted_from, news.events)
    return (*said, curves)


@settings(deadline=None, derandomize=True, max_examples=400)
@example([compact(each) for each in (started(), train(5), {**train(6), "attempt": True}, {**train(7), "attempt": 1.0})])
@example([compact(each) for each in (started(), finished(attempt=2), started(60.0), train(9, attempt=2))])
@given(LINES)
def test_rows_of_training_are_taken_as_one_by_one(lines: list[bytes]) -> None:
    quick = taken(News(Progress(), {}), lines)
    assert told(quick) == told(taken(OneByOne(Progress(), {}), lines))
    assert told(quick) == told(taken(News(Progress(), {}), lines, pauses=True))
    for payload in quick.curves.values():
        assert not {"kind", "time", "attempt", "iteration", "classes"} & json.loads(payload).keys()
    sound = []
    for line in lines:
        try:
            News(Progress(), {}).take(line)
            sound.append(json.loads(line))
        except MALFORMED:
            continue
    assert quick.progress == reduce(advance, sound, Progress())
    assert quick.events == len(sound)


def test_only_what_moves_time_and_place_is_uneventful() -> None:
    before = taken(News(Progress(), {}), [compact(each) for each in whole_life()[:5]])
    assert before.eventful
    followed = taken(News(before.progress, dict(before.attempts)), [compact(train(30)), compact(train(31))])
    assert not followed.eventful
    assert followed.progress == advance(advance(before.progress, train(30)), train(31))
    assert followed.touched == {1}
    assert taken(News(followed.progress, followed.attempts), [compact(validated(32))]).eventful


def test_the_curve_keeps_the_text_of_the_recorder() -> None:
    news = taken(News(Progress(), {}), [compact(started()), compact(train(5)), spaced(train(6))])
    line = compact(train(5)).decode()
    assert news.curves["train", 5] == "{" + line[line.index('"lr"') :]
    assert json.loads(news.curves["train", 6]) == json.loads(news.curves["train", 5])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_no_name_for_is_not_taken(number: float) -> None:
    news = News(Progress(), {})
    for broken in ({**started(), "time": number}, {**train(5), "time": number}):
        with pytest.raises(MALFORMED):
            news.take(json.dumps(broken).encode())
    assert news == News(Progress(), {})
