"""What a long command says on stderr."""

from __future__ import annotations

import pytest

from forkwatch.cli.output import Progresses, amount


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [(3, 40, "3/40"), (0, 0, "0"), (1_250_000_000, 16_100_000_000, "1.25/16.10 G"), (5_000_000, 0, "5.00 M")],
)
def test_amounts(done: int, total: int, shown: str) -> None:
    """Counts stay whole; elements and bytes are told in millions and billions of them."""
    assert amount(done, total) == shown


def test_lines_where_there_are_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    """In a log, something long says now and then how far it is; something short says nothing."""
    often, rarely = Progresses(None, every=0.0), Progresses(None)

    often.progress("compared", 1_000_000, 4_000_000)
    rarely.progress("compared", 1, 4)

    assert capsys.readouterr().err == "compared: 1.00/4.00 M\n"
