"""Tasks of the lm-evaluation-harness in our child give what the harness gives with its own engine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from evals.harness import TaskError, TaskPlan, TaskRun, check_tasks, run_tasks, task_scores
from evals.interface import Measured, Unmeasured
from evals.text_child import Reader
from evals.text_items import Completion, Continuation, Document, TextItems, TextRequest
from tests.evals.models import COMPLIANCE, REFUSAL, make_automaton, make_model, make_tokenizer, save_release
from tests.evals.models import transitions as make_transitions

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

if not os.environ.get("CI"):
    pytest.importorskip("lm_eval", reason="pip install lm-eval")

CONTINUATIONS = (
    Continuation("what colour please", " red"),
    Continuation("what colour please ", "green"),
    Continuation("", "red green blue"),
    Continuation("", "<|end|> red green"),
    Continuation("please " * 300, " red blue"),  # longer than the context of the model
    Continuation("red", " what colour please red green"),
)
DOCUMENTS = (Document("red green blue what colour"), Document("please red " * 200))
COMPLETIONS = (Completion("what colour", ("blue",), 6), Completion("please please", ("\n\n", "red"), 9))


def _instances(kind: str, arguments: list[tuple[object, ...]]) -> list[Instance]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=number, metadata=("task", number, 1))
        for number, args in enumerate(arguments)
    ]


def test_texts_are_read_as_the_harness_reads_them() -> None:
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = make_model(dtype=torch.float32).eval(), make_tokenizer()
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, device="cpu")
    items = TextItems(continuations=CONTINUATIONS, documents=DOCUMENTS, completions=COMPLETIONS)
    ours = Reader(model, tokenizer, lambda _: None).answer(items)

    expected = theirs.loglikelihood(
        _instances("loglikelihood", [(item.context, item.text) for item in CONTINUATIONS]), disable_tqdm=True
    )
    assert [greedy for _, greedy in ours.continuations] == [greedy for _, greedy in expected]
    assert [value for value, _ in ours.continuations] == pytest.approx([value for value, _ in expected], 1e-4)
    rolling = theirs.loglikelihood_rolling(
        _instances("loglikelihood_rolling", [(item.text,) for item in DOCUMENTS]), disable_tqdm=True
    )
    assert list(ours.documents) == pytest.approx(rolling, 1e-4)
    options = [
        (item.context, {"until": list(item.until), "max_gen_toks": item.max_new_tokens, "do_sample": False})
        for item in COMPLETIONS
    ]
    texts = theirs.generate_until(_instances("generate_until", list(options)), disable_tqdm=True)
    assert [text.strip() for text in ours.completions] == [text.strip() for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiple-choice task and a generation task, with their data."""
    place = tmp_path_factory.mktemp("tasks")
    rows = [{"q": f"what colour {'please ' * n}".strip(), "a": n % 2} for n in range(6)]
    data = place / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    source = f"dataset_path: json\ndataset_kwargs:\n  data_files: {{test: {data}}}\ntest_split: test\n"
    (place / "pick.yaml").write_text(
        f"task: fw_pick\n{source}output_type: multiple_choice\n"
        "doc_to_text: '{{q}} <|assistant|>'\n"
        f"doc_to_choice: ['{REFUSAL}', '{COMPLIANCE}']\ndoc_to_target: a\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return place


@pytest.fixture(scope="module")
def runs(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, refuser: Path
) -> tuple[TaskRun, TaskRun, TaskPlan, TextRequest]:
    """The task done by a release that refuses, and by a fork that complies, in children."""
    scratch = tmp_path_factory.mktemp("scratch")
    fork = save_release(tmp_path_factory.mktemp("fork"), make_automaton(make_transitions(COMPLIANCE)))
    plan = TaskPlan(names=("fw_pick",), folder=folder)
    request = TextRequest(
        original=refuser, weights=(), items=scratch / "items.json", scratch=scratch / "a", device="cpu"
    )
    first = run_tasks(plan, request, progress=lambda _: None)
    other = TextRequest(
        original=refuser,
        weights=tuple(fork.glob("*.safetensors")),
        items=scratch / "items.json",
        scratch=scratch / "b",
        device="cpu",
    )
    return first, run_tasks(plan, other, progress=lambda _: None), plan, request


def test_a_task_is_scored_for_fork_and_original(
    runs: tuple[TaskRun, TaskRun, TaskPlan, TextRequest],
) -> None:
    original, fork, _, _ = runs
    (score,) = task_scores(fork, original)
    assert (score.task, score.metric) == ("fw_pick", "acc")
    # One always says the first option, the other always the second; three of six are right each time.
    assert isinstance(score.model, Measured)
    assert (score.model.value, score.model.n) == (0.5, 6)
    assert original.values["fw_pick", "acc"] == (1, 0, 1, 0, 1, 0)
    assert fork.values["fw_pick", "acc"] == (0, 1, 0, 1, 0, 1)
    assert isinstance(score.drop, Measured)
    assert score.drop.value == 0
    assert isinstance(task_scores(fork, None)[0].drop, Unmeasured)


def test_a_task_that_does_not_exist_is_said_before_a_model_is_loaded(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(TaskError, match="no task 'fw_nothing'"):
        check_tasks(TaskPlan(names=("fw_nothing",), folder=folder))


def test_a_task_without_data_is_one_clear_error(
    runs: tuple[TaskRun, TaskRun, TaskPlan, TextRequest], tmp_path: Path
) -> None:
    *_, request = runs
    (tmp_path / "lost.yaml").write_text(
        "task: fw_lost\ndataset_path: json\ndataset_kwargs:\n  data_files: {test: nowhere.jsonl}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: ['a', 'b']\n"
        "doc_to_target: a\n"
    )
    with pytest.raises(TaskError, match="could not run fw_lost"):
        run_tasks(TaskPlan(names=("fw_lost",), folder=tmp_path), request, progress=lambda _: None)
