"""Colours can be read in both schemes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).parents[2] / "reports" / "assets" / "site.css").read_text(encoding="utf-8")
TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", CSS)
}
TONES = ("good", "calm", "mild", "warn", "bad", "false", "risk", "none")
TEXT = [(text, ground) for text in ("ink", "muted", "link") for ground in ("paper", "surface", "sunken")]
TEXT += [(tone, f"{tone}-bg") for tone in TONES] + [("ink", f"{tone}-bg") for tone in TONES]
TEXT += [("good", "surface"), ("bad", "surface"), ("good", "paper"), ("bad", "paper")]
GRAPHICS = [
    ("edge", "surface"),
    ("edge", "paper"),
    ("link", "paper"),
    ("focus", "paper"),
    ("focus", "surface"),
]


def luminance(colour: str) -> float:
    """WCAG relative luminance."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_enough_contrast(scheme):
    """4.5:1 for text, 3:1 for graphics and focus (WCAG 2.2 AA)."""
    for pairs, least in ((TEXT, 4.5), (GRAPHICS, 3.0)):
        found = {pair: contrast(TOKENS[pair[0]][scheme], TOKENS[pair[1]][scheme]) for pair in pairs}
        assert {pair: ratio for pair, ratio in found.items() if ratio < least} == {}


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_bars_have_enough_contrast(scheme):
    """Each verdict's segment stands out from the panel."""
    fills = re.findall(r"--fill: light-dark\((#\w{6}), (#\w{6})\)", CSS)
    assert len(fills) == 9
    assert min(contrast(fill[scheme], TOKENS["surface"][scheme]) for fill in fills) >= 3


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_the_heatmap_is_ordered_by_lightness(scheme):
    """More change is always further from the ground, so the scale works without hue."""
    shades = [re.search(rf"\.h{n} {{ fill: light-dark\((#\w{{6}}), (#\w{{6}})\)", CSS) for n in range(1, 10)]
    lightness = [luminance(shade.group(scheme + 1)) for shade in shades if shade]
    assert len(lightness) == 9
    assert lightness == sorted(lightness, reverse=scheme == 0)
