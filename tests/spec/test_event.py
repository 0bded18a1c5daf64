import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prove.spec.event import FailureKind, State, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_one_line_of_strict_json_per_event(event: dict[str, Any]) -> None:
    line = encode(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line, parse_constant=refuse) == finite(event)


def test_every_failure_has_advice() -> None:
    assert all(kind.advice and "\n" not in kind.advice for kind in FailureKind)


def test_states_are_the_documented_ones() -> None:
    assert list(State) == ["planned", "queued", "running", "finished", "failed", "cancelled", "interrupted"]
