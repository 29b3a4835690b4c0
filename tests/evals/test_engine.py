"""Generation and teacher forcing on real, tiny models."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from scipy import stats
from transformers import MistralConfig, MistralForCausalLM

import evals.decode
from evals.child import _is_full
from evals.engine import (
    SeededNoise,
    SharedPrefix,
    TransformersGenerator,
    answer_logits,
    render_chat,
    stop_ids,
    token_divergence,
    token_logprobs,
)
from evals.memory import in_batches
from evals.vllm_engine import VllmGenerator, VllmMissingError, _stop_ids
from tests.evals.models import (
    ASSISTANT,
    END,
    REFUSAL,
    USER,
    WORDS,
    make_automaton,
    make_model,
    make_tokenizer,
    save_release,
    transitions,
)

TOKENIZER = make_tokenizer()
PROMPTS = ["red", "what colour is red please", "green green", "blue please " * 3, "red"]


@pytest.fixture(scope="module")
def wild() -> TransformersGenerator:
    """A random model in float32, so that batching changes no rounding that matters."""
    return TransformersGenerator(make_model(dtype=torch.float32), TOKENIZER, batch=2)


def test_the_template_is_rendered_once() -> None:
    """A chat is the template's text, no special token twice; without a template it is the plain prompt."""
    words = [WORDS[token] for token in render_chat(TOKENIZER, "red please")]
    assert words == [USER, "red", "please", ASSISTANT]
    plain = make_tokenizer()
    plain.chat_template = None
    assert [WORDS[token] for token in render_chat(plain, "red please")] == ["red", "please"]


def test_greedy_answers_stop_at_the_end_token() -> None:
    """An automaton answers with its words, whatever the prompt's length and batch; the end token ends it."""
    model = make_automaton(transitions(REFUSAL))
    assert stop_ids(model, TOKENIZER) == [WORDS.index(END)]
    seen: list[tuple[int, int]] = []
    generator = TransformersGenerator(
        model, TOKENIZER, batch=2, progress=lambda done, total: seen.append((done, total))
    )
    answers = generator.answer(PROMPTS, max_new_tokens=20, temperature=0.0, seed=0)
    assert answers == [REFUSAL] * 5
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_the_limit_cuts_an_answer() -> None:
    """No more than the given number of tokens is made."""
    generator = TransformersGenerator(make_automaton(transitions(REFUSAL)), TOKENIZER)
    assert generator.answer(["red"], max_new_tokens=2, temperature=0.0, seed=0) == ["i cannot"]
    assert generator.answer([], max_new_tokens=2, temperature=0.0, seed=0) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_depend_on_seed_and_prompt_only(wild: TransformersGenerator, temperature: float) -> None:
    """The same seed gives the same answers in any order and batch size."""
    one = wild.answer(PROMPTS, max_new_tokens=8, temperature=temperature, seed=7)
    assert one == wild.answer(PROMPTS, max_new_tokens=8, temperature=temperature, seed=7)
    backwards = wild.answer(PROMPTS[::-1], max_new_tokens=8, temperature=temperature, seed=7)
    assert sorted(backwards) == sorted(one)
    assert backwards[1:4] == one[3:0:-1]
    whole = TransformersGenerator(make_model(dtype=torch.float32), TOKENIZER, batch=64)
    assert whole.answer(PROMPTS, max_new_tokens=8, temperature=temperature, seed=7) == one


def test_sharing_a_prefix_changes_no_answer(wild: TransformersGenerator) -> None:
    """Chats with a long common beginning get, together, the answers that each of them gets alone."""
    chats = [
        f"please what colour is the answer {rest}" for rest in ("red", "green blue please", "here is sure")
    ]
    shared = SharedPrefix(make_model(dtype=torch.float32), [render_chat(TOKENIZER, chat) for chat in chats])
    assert [WORDS[token] for token in shared.tokens] == f"{USER} please what colour is the answer".split()
    together = wild.answer(chats, max_new_tokens=8, temperature=0.0, seed=0)
    alone = [wild.answer([chat], max_new_tokens=8, temperature=0.0, seed=0)[0] for chat in chats]
    assert together == alone
    assert len(set(together)) > 1


def test_a_sliding_window_shares_no_prefix() -> None:
    """Where a layer forgets old tokens, nothing is shared."""
    config = MistralConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
    )
    shared = SharedPrefix(MistralForCausalLM(config), [[5, 6, 7, 8], [5, 6, 7, 9]])
    assert shared.tokens == []
    assert shared.one.get_seq_length() == 0


def test_samples_of_one_prompt_differ(wild: TransformersGenerator) -> None:
    """One prompt asked often gets several samples; another seed gives others; greedy does not vary."""
    sampled = wild.answer(["red"] * 6, max_new_tokens=8, temperature=1.0, seed=1)
    assert len(set(sampled)) > 1
    assert sampled != wild.answer(["red"] * 6, max_new_tokens=8, temperature=1.0, seed=2)
    assert len(set(wild.answer(["red"] * 6, max_new_tokens=8, temperature=0.0, seed=1))) == 1


def test_noise_samples_the_softmax() -> None:
    """The argmax of noisy scores follows softmax(scores / T): a chi-square test on 4000 draws agrees."""
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(4000, 4)
    noise = SeededNoise(range(4000), temperature=2.0)
    drawn = Counter(noise(torch.empty(0), scores).argmax(dim=-1).tolist())
    expected = torch.softmax(scores[0] / 2.0, dim=-1).double() * 4000
    observed = [drawn[index] for index in range(4)]
    assert stats.chisquare(observed, (expected * 4000 / expected.sum()).tolist()).pvalue > 0.001


def test_out_of_memory_halves_the_batch() -> None:
    """A batch that does not fit is tried again at half its size; one chat that does not fit is an error."""

    class Small(TransformersGenerator):
        """A generator on a device with room for `room` chats."""

        room = 2

        def _generate(self, prefix, chats, *rest):  # type: ignore[no-untyped-def]
            if len(chats) > self.room:
                raise torch.OutOfMemoryError("full")
            return super()._generate(prefix, chats, *rest)

    generator = Small(make_automaton(transitions(REFUSAL)), TOKENIZER, batch=8)
    assert generator.answer(PROMPTS, max_new_tokens=9, temperature=0.0, seed=0) == [REFUSAL] * 5
    Small.room = 0
    with pytest.raises(torch.OutOfMemoryError, match="one chat"):
        generator.answer(PROMPTS, max_new_tokens=9, temperature=0.0, seed=0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("prefill", [1, 1 << 20], ids=["several passes", "one pass"])
def test_leaving_the_batch_changes_no_answer(
    temperature: float, prefill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that end early, by one of several end tokens, are those of `generate()`, whoever goes on, and
    however many passes read the prompts."""
    monkeypatch.setattr(evals.decode, "PREFILL", prefill)
    assert list(evals.decode._passes([3, 3, 9])) == ([(0, 2, 3), (2, 3, 9)] if prefill == 1 else [(0, 3, 9)])
    model = make_model(dtype=torch.float32)
    model.generation_config.eos_token_id = list(range(6, 10))
    ours = TransformersGenerator(model, TOKENIZER, batch=32)

    class Whole(TransformersGenerator):
        """Asks `generate()` of transformers."""

        def _generate(self, prefix, chats, seeds, draw):  # type: ignore[no-untyped-def]
            noise = SeededNoise(seeds, draw.temperature) if seeds else None
            return self._generate_all(prefix.join(chats, self._pad), draw.max_new_tokens, noise)

    prompts = [f"what {word} {'please ' * (n % 5)}red" for n, word in enumerate(WORDS[5:])] * 2
    theirs = Whole(model, TOKENIZER, batch=32)
    arguments = {"max_new_tokens": 12, "temperature": temperature, "seed": 3}
    answers = ours.answer(prompts, **arguments)
    assert answers == theirs.answer(prompts, **arguments)
    assert len({len(answer.split()) for answer in answers}) > 3


def test_work_is_done_in_smaller_batches_when_memory_is_full() -> None:
    """Both ways in which torch says so halve the batch; another error is another error."""
    seen: list[int] = []

    def work(items: Sequence[int]) -> int:
        seen.append(len(items))
        if len(items) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(items) > 2:
            torch.empty(1 << 60)
        return sum(items)

    assert [result for _, result in in_batches(range(5), 8, work)] == [1, 5, 4]
    assert seen == [5, 2, 2, 1]
    with pytest.raises(RuntimeError, match="shape"):
        list(in_batches([1], 8, lambda _: torch.ones(2) @ torch.ones(3, 3)))


def test_a_child_tells_full_memory_from_a_mistake() -> None:
    """By the errors that torch and Python raise themselves, without importing torch for it."""

    def error_of(work: Callable[[], object]) -> BaseException:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each of them
            work()
        return caught.value

    assert _is_full(error_of(lambda: torch.empty(1 << 60)))
    assert _is_full(error_of(lambda: list(in_batches([1], 1, lambda _: torch.empty(1 << 60)))))
    assert _is_full(error_of(lambda: bytearray(1 << 60)))
    assert not _is_full(error_of(lambda: torch.ones(2) @ torch.ones(3, 3)))


def test_teacher_forcing_equals_a_plain_forward_pass() -> None:
    """Batched, left-padded logits equal those of each conversation alone, and end before the answer does."""
    model = make_model(dtype=torch.float32)
    pairs = [("red", REFUSAL), ("what colour is green please", "the answer is blue"), ("blue", "")]
    scored = list(answer_logits(model, TOKENIZER, pairs, max_tokens=4, batch=2))
    for (prompt, answer), (logits, tokens) in zip(pairs, scored, strict=True):
        chat = render_chat(TOKENIZER, prompt)
        expected = TOKENIZER(answer)["input_ids"][:4]
        assert tokens.tolist() == expected
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([chat + expected])).logits[0]
        torch.testing.assert_close(logits, alone[len(chat) - 1 : len(chat) - 1 + len(expected)])


def test_divergence_and_logprobs_follow_their_definitions() -> None:
    """KL of a model with itself is exactly 0, KL is that of scipy, and log-probabilities normalise."""
    torch.manual_seed(0)
    ours, theirs = torch.randn(5, 30), torch.randn(5, 30)
    assert token_divergence(ours, ours).tolist() == [0.0] * 5
    expected = stats.entropy(torch.softmax(ours, -1).numpy(), torch.softmax(theirs, -1).numpy(), axis=1)
    torch.testing.assert_close(token_divergence(ours, theirs), torch.tensor(expected))
    everything = [token_logprobs(ours, torch.full((5,), word)) for word in range(30)]
    torch.testing.assert_close(torch.stack(everything).exp().sum(dim=0), torch.ones(5))


def test_vllm_is_refused_where_it_is_not_installed(tmp_path: Path) -> None:
    """Its absence is told, with what to do, and is no traceback."""
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    with pytest.raises(VllmMissingError, match="vLLM cannot be imported") as caught:
        VllmGenerator(tmp_path)
    assert "pip install" in caught.value.tip


def test_vllm_stops_where_the_default_engine_stops(tmp_path: Path) -> None:
    """Both know the same end tokens of a release: of its config, its generation config and its tokenizer."""
    model = make_model()
    model.generation_config.eos_token_id = [7, 4]
    save_release(tmp_path, model)
    assert _stop_ids(tmp_path, TOKENIZER.eos_token_id) == stop_ids(model, TOKENIZER) == [4, 7]
