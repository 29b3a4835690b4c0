"""Our JSON text is the standard library's, byte for byte."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.pretty import pretty
from tests.reports import samples

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_it_is_what_the_standard_library_writes(value: object) -> None:
    """For whatever JSON can carry."""
    assert pretty(value) == json.dumps(value, indent=2, allow_nan=False)


def test_dataclasses_are_objects() -> None:
    """In the order of their fields, however deep."""
    for scan in samples.view().releases[0].scans:
        assert pretty(scan) == json.dumps(dataclasses.asdict(scan), indent=2)


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), ({"a": {1}}, TypeError)])
def test_what_json_cannot_carry(value: object, error: type[Exception]) -> None:
    """Is an error, never another text."""
    with pytest.raises(error):
        pretty(value)
