"""What a repository states: numbers, within reason, from hostile text."""

from __future__ import annotations

import json
import time
from dataclasses import fields

import pytest

from evals.effort import Basis, Fact, Statements
from evals.interface import Unmeasured
from forkwatch.pipeline.stated import FILES, read_statements

CARD = """---
base_model: lab/guarded
---
# My fork

### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 5e-05
- train_batch_size: 8
- eval_batch_size: 1
- num_devices: 2
- gradient_accumulation_steps: 4
- num_epochs: 3.0
- training_steps: 1,000

Trained on about 12k curated examples for 2 epochs, it took 1.5 hours on 2x A100.
"""


def stated(texts: dict[str, str]) -> dict[str, float]:
    """The numbers that were found."""
    found = read_statements(texts, {})
    values = {field.name: getattr(found, field.name) for field in fields(Statements)}
    return {name: value.value for name, value in values.items() if isinstance(value, Fact)}


def test_a_trainers_card() -> None:
    """Lists come before sentences; without a total the batch is the product of its factors."""
    assert stated({"README.md": CARD}) == {
        "steps": 1000, "epochs": 3, "batch": 64, "devices": 2, "examples": 12_000, "hours": 1.5,
    }  # fmt: skip
    assert read_statements({"README.md": CARD}, {}).hardware == "A100"


def test_what_a_program_wrote_has_the_word() -> None:
    """The trainer's own state before the card, and every number says where it was found."""
    state = {"global_step": 52, "epoch": 1.0, "total_flos": 3e15, "num_input_tokens_seen": 0, "max_steps": 60}
    found = read_statements({"README.md": CARD, "trainer_state.json": json.dumps(state)}, {})

    assert found.steps == Fact(52.0, Basis.STATED, "trainer_state.json")
    assert found.flops == Fact(3e15, Basis.STATED, "trainer_state.json")
    assert isinstance(found.examples, Fact)
    assert found.examples.source == "README.md"
    assert isinstance(found.tokens, Unmeasured)


def test_the_other_files() -> None:
    """Results, an adapter's rank, the trials of a search, the models of a merge (each once)."""
    merge = "models:\n  - model: lab/guarded\n  - model: other/one\nbase_model: lab/guarded\n"
    assert stated(
        {
            "train_results.json": json.dumps({"train_samples": 104, "train_runtime": 150.0}),
            "adapter_config.json": json.dumps({"r": 8, "lora_alpha": 16}),
            "reproduce/reproduce.json": json.dumps({"version": 3, "settings": {"n_trials": 200}}),
            "mergekit_config.yml": merge,
        }
    ) == {
        "examples": 104, "hours": pytest.approx(150 / 3600), "adapter_rank": 8, "trials": 200, "parents": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", "[" * 100_000, '{"global_step": "52"}', '{"global_step": true}',
        '{"global_step": NaN}', '{"global_step": Infinity}', '{"global_step": -1}', '{"global_step": 0}',
        '{"global_step": 1e9}', '{"global_step": {"a": 1}}', '{"global_step": ' + "9" * 5000 + "}",
        '{"global_step": ' + "9" * 400 + "}",
    ],
)  # fmt: skip
def test_implausible_json_states_nothing(text: str) -> None:
    """No clipped number, no crash: it is as if nothing were said."""
    assert stated(dict.fromkeys(FILES, text)) == {}


@pytest.mark.parametrize(
    "line",
    [
        "- training_steps: 0", "- training_steps: 1e99", "- training_steps: many", "training_steps 100",
        "- training_steps: 10k", "for 0 steps", "for 99999999999999999999 epochs", "- max_length: 3",
        "trained on 1e9999 examples",
    ],
)  # fmt: skip
def test_implausible_prose_states_nothing(line: str) -> None:
    """A number is a number in a known place, in a plausible range."""
    assert stated({"README.md": line}) == {}


def test_only_numbers_and_our_own_words_come_out() -> None:
    """Whatever a card says, no text of it gets into the result: not into reasons, sources or hardware."""
    evil = CARD.replace("A100", "<script>alert(1)</script> \x1b[2J") + "- training_steps: <b>1</b>\n"
    found = repr(read_statements({"README.md": evil}, {}))

    assert "script" not in found
    assert "\\x1b" not in found
    assert read_statements({"README.md": evil}, {}).hardware == ""


@pytest.mark.parametrize(
    "evil",
    ["trained on " * 20_000, "a" * 200_000, "- " * 100_000, " \n" * 100_000, ("x" * 1999 + "\n") * 100,
     ("fine-tuned on 1 a b " * 99 + "\n") * 100, "for 1 " * 40_000],
)  # fmt: skip
def test_no_card_takes_long(evil: str) -> None:
    """Every pattern is bounded: 200,000 characters of the worst take well below a second."""
    began = time.perf_counter()
    read_statements({"README.md": evil, "mergekit_config.yml": evil}, {})

    assert time.perf_counter() - began < 3


def test_nothing_stated_says_where_it_was_looked() -> None:
    """No file, a file without a number, a file that could not be read: three reasons."""
    nothing = read_statements({}, {}).steps
    silent = read_statements({"README.md": "# A model"}, {}).steps
    unread = read_statements({}, {"trainer_state.json": "too large"}).steps

    assert [gap.reason for gap in (nothing, silent, unread) if isinstance(gap, Unmeasured)] == [
        "the repository has no file that would say",
        "not stated in README.md",
        "not stated where it was looked; trainer_state.json was not read: too large",
    ]
