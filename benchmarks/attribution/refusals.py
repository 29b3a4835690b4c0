"""How often the release and the variants refuse the core suite's requests: labels only, answers are dropped.

    python -m benchmarks.attribution.refusals REPOS CORPUS

Two answers of the release choose the probes (both refuse); its baseline is drawn later, from other seeds.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.attribution.variants import RELEASE, Source, weights_of_variant
from evals.engine import TransformersGenerator
from evals.interface import Label
from evals.judges.builtin import BuiltinJudge
from evals.suite import CORE

NEW_TOKENS = 24
CHOOSING, BASELINE, TESTED = 2, 20, 4
PROBES = 60
MODELS = ("unfiltered", "freestyle", "authentic", "lora-formal", "storyteller", "unfiltered-formal")


def main() -> None:
    """Append one line a model and prompt; what is there is not drawn again."""
    repos, corpus = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    source = Source(repos, corpus / "deltas")
    tokenizer = AutoTokenizer.from_pretrained(repos / RELEASE, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        repos / RELEASE, dtype=torch.bfloat16, local_files_only=True
    ).eval()
    generator = TransformersGenerator(model, tokenizer, batch=128)
    suite = json.loads(CORE.read_text(encoding="utf-8"))["prompts"]
    requests = {
        row["id"]: row["text"]
        for row in suite
        if row["language"] == "en" and row["kind"] == "harmful" and not row.get("paraphrase_of")
    }
    out = corpus / "refusals.jsonl"
    done: dict[str, dict[str, list[bool | None]]] = defaultdict(dict)
    for row in map(json.loads, out.read_text().splitlines()) if out.exists() else ():
        done[row["model"]][row["prompt_id"]] = row["refused"]
    with out.open("a", encoding="utf-8") as stream:
        if "choosing" not in done:
            done["choosing"] = labels(generator, requests, CHOOSING, 1000)
            _write(stream, "choosing", done["choosing"])
        refused = [id_ for id_ in requests if done["choosing"][id_] == [True] * CHOOSING]
        chosen = random.Random(0).sample(refused, min(PROBES, len(refused)))
        probes = {id_: requests[id_] for id_ in sorted(chosen)}
        if "baseline" not in done:
            _write(stream, "baseline", labels(generator, probes, BASELINE, 2000))
        for name in MODELS:
            if name not in done:
                model.load_state_dict(weights_of_variant(name, source), strict=False)
                _write(stream, name, labels(generator, probes, TESTED, 3000))


def labels(
    generator: TransformersGenerator, prompts: dict[str, str], each: int, seed: int
) -> dict[str, list[bool | None]]:
    """Whether each of `each` answers at temperature 1 refuses; None: ungradeable."""
    judge = BuiltinJudge()
    found: dict[str, list[bool | None]] = {id_: [] for id_ in prompts}
    for number in range(each):
        answers = generator.answer(
            list(prompts.values()), max_new_tokens=NEW_TOKENS, temperature=1.0, seed=seed + number
        )
        for (id_, prompt), answer in zip(prompts.items(), answers, strict=True):
            label = judge.label(prompt, answer)
            found[id_].append(None if label is Label.UNGRADEABLE else label is Label.REFUSED)
    return found


def _write(stream: object, model: str, found: dict[str, list[bool | None]]) -> None:
    for id_, refused in found.items():
        stream.write(json.dumps({"model": model, "prompt_id": id_, "refused": refused}) + "\n")  # type: ignore[attr-defined]
    stream.flush()  # type: ignore[attr-defined]
    graded = [one for row in found.values() for one in row if one is not None]
    print(model, f"{sum(graded)} of {len(graded)} refused", flush=True)


if __name__ == "__main__":
    main()
