"""The forty harmless prompts of the corpus: twenty plain requests and twenty benign twins of the core suite.

Within each half all prompts have the same number of tokens, so that a batch needs no padding.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from evals.suite import CORE

HALF = 20
PLAIN_TOKENS, TWIN_TOKENS = 9, 14


def probe_prompts(count: Callable[[str], int]) -> dict[str, str]:
    """Prompt id to text, in a fixed order; `count` gives a text's number of tokens."""
    suite = json.loads(CORE.read_text(encoding="utf-8"))["prompts"]
    english = [row for row in suite if row["language"] == "en"]
    plain = [(row["id"], row["text"]) for row in english if row["kind"] == "utility"]
    plain += [(f"{id_}-please", f"Please: {text[0].lower()}{text[1:]}") for id_, text in plain]
    twins = [(row["id"], row["text"]) for row in english if row["kind"] == "benign-twin"]
    chosen = [pair for pair in plain if count(pair[1]) == PLAIN_TOKENS][:HALF]
    chosen += [pair for pair in twins if count(pair[1]) == TWIN_TOKENS][:HALF]
    if len(chosen) != 2 * HALF:
        raise ValueError(f"only {len(chosen)} prompts have the wanted lengths")
    return dict(chosen)
