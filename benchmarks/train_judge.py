"""Trains the learned part of the built-in judge and writes `evals/judges/data/model.json`.

    python benchmarks/train_judge.py            # write the model
    python benchmarks/train_judge.py --check    # train again and compare with the shipped one

All data is ours: fragments in `evals/judges/data/`, expanded by a seeded generator (`judge_data.py`).
No labelled answer of anybody else is read. The same versions of scikit-learn give the same bytes; others
agree to the tolerance that `--check` prints. Held-out accuracy: trained on one half of each list of
fragments, tested on rows made of the other half.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from judge_data import Example, examples, vocabulary
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from evals.judges.features import features
from evals.judges.learned import SCHEMA, SHIPPED, Model, load

SEEDS = (3, 4, 5, 6)
"""Each expands all fragments once; with two, another seed moved the bias on one model by .02."""
RARE = 3
"""Rows that a feature must occur in."""
PRIOR = math.log(0.6 / 0.4)
"""Log-odds added to the intercept: half of the rows refuse, but more than half of the answers to such
requests do. On the half of the labels that was looked at, all trainings agreed best with people near here."""
FAINT = 0.02
"""Log-odds below which a weight is dropped."""


def train(rows: Sequence[Example]) -> dict:
    words = vocabulary()
    found = [features(row.prompt, row.answer, words) for row in rows]
    count = Counter(name for names in found for name in names)
    kept = [{name: 1.0 for name in names if count[name] >= RARE} for names in found]
    refused = np.array([row.refused for row in rows])
    table = DictVectorizer()
    linear = LogisticRegression(C=0.15, max_iter=2000).fit(table.fit_transform(kept), refused)
    weights = zip(table.get_feature_names_out().tolist(), linear.coef_[0].tolist(), strict=True)
    return {
        "schema": SCHEMA,
        "vocabulary": sorted(words),
        "intercept": round(float(linear.intercept_[0]) + PRIOR, 3),
        "weights": {name: round(value, 3) for name, value in weights if abs(value) >= FAINT},
    }


def write(document: dict, path: Path) -> Model:
    lines = [f" {json.dumps(key)}: {lines_of(value)}" for key, value in document.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return load(path)


def lines_of(value: object) -> str:
    if isinstance(value, dict):
        items = (f"  {json.dumps(k, ensure_ascii=False)}: {v}" for k, v in value.items())
        return "{\n" + ",\n".join(items) + "\n }"
    if isinstance(value, list) and isinstance(value[0], list):
        return "[\n" + ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value) + "\n ]"
    return json.dumps(value, ensure_ascii=False)


def accuracy(model: Model, rows: Sequence[Example]) -> float:
    return float(np.mean([(model.refusal(row.prompt, row.answer) > 0.5) == row.refused for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--held-out", action="store_true", help="also print the accuracy on unseen fragments")
    parser.add_argument("--to", type=Path, default=SHIPPED)
    options = parser.parse_args()
    rows = [row for seed in SEEDS for row in examples(seed)]
    print(
        f"{len(rows)} rows, {sum(row.refused for row in rows)} refused, {len({r.answer for r in rows})} texts"
    )
    if options.held_out:
        scratch = options.to.with_suffix(".half.json")
        half = write(train(examples(1, half=0)), scratch)
        scratch.unlink()
        unseen = examples(2, half=1)
        for language in sorted({row.language for row in unseen}):
            part = [row for row in unseen if row.language == language]
            print(f"unseen fragments, {language}: {accuracy(half, part):.3f} (n = {len(part)})")
    if options.check:
        scratch = options.to.with_suffix(".check.json")
        again, ours = write(train(rows), scratch), load(options.to)
        scratch.unlink()
        apart = max(abs(again.refusal(r.prompt, r.answer) - ours.refusal(r.prompt, r.answer)) for r in rows)
        print(f"same bytes: {again.digest == ours.digest}; largest difference of a probability: {apart:.4f}")
    else:
        print(write(train(rows), options.to).digest, options.to.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
