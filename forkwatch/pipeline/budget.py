"""How many bytes a sketch may read."""

from __future__ import annotations

SHARE, SMALL_SHARE = 0.002, 0.005
"""Share of a fork's bytes (DESIGN section 3), and of a small one's."""
FLOOR, SMALL_MOST = 4 << 20, 16 << 20
"""Bytes however small the fork is, as headers and a few bands do not shrink with the model; and bytes up to
which the share of a small one holds."""


def sketch_budget(total_bytes: int) -> int:
    """Bytes that a sketch may read of so many: 0.2 %, and up to 0.5 % of those of a gigabyte or two."""
    return max(FLOOR, min(int(SMALL_SHARE * total_bytes), SMALL_MOST), int(SHARE * total_bytes))
