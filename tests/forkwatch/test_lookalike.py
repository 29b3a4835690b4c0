"""Ids that imitate a release are told; the names that forks really have are not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from crawler.interface import RepoId
from detector.interface import EditKind, LineageStatus
from evals.measurements import SafetyStatus
from forkwatch.demo.hub import LoopbackHub
from forkwatch.demo.population import populate
from forkwatch.policy.facts import NotReached
from forkwatch.policy.findings import all_findings
from forkwatch.policy.licence import licence_differs
from forkwatch.policy.lookalike import imitation
from forkwatch.policy.verdict import decide
from tests.forkwatch.samples import SNAPSHOT, comparison, facts, weights

RELEASES = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-8B",
    "google/gemma-3-27b-it",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "openai/gpt-oss-20b",
    "ibm-granite/granite-3.3-8b-instruct",
    "deepseek-ai/DeepSeek-R1",
    "microsoft/phi-4",
)
IMITATIONS = {
    "meta-IIama/Llama-3.1-8B-Instruct": "two capital I for l",
    "meta-llarna/Llama-3.1-8B-Instruct": "rn for m",
    "meta-lllama/Llama-3.1-8B-Instruct": "a letter more",
    "mata-llama/Llama-3.1-8B-Instruct": "another vowel",
    "metallama/Llama-3.1-8B-Instruct": "no separator",
    "meta_llama/Llama-3.1-8B-Instruct-GGUF": "another separator, and a suffix",
    "meta-llama-official/Llama-3.1-8B-Instruct": "a word of authority",
    "someone/Llama-3.1-8B-lnstruct": "l for I in the model",
    "0penai/gpt-oss-20b": "zero for o",
    "opennai/gpt-oss-20b": "a doubled letter",
    "opneai/gpt-oss-20b": "two letters swapped",
    "Qwen-official/Qwen3-8B": "a word of authority behind a short name",
    "mistraiai/Mistral-7B-Instruct-v0.3": "i for l",
    "googIe/gemma-3-27b-it": "capital I for l",
    "deepseekai/DeepSeek-R1": "no separator",
    "rnicrosoft/phi-4": "rn for m, and a short model name",
}
OWNERS = (
    *("unsloth", "bartowski", "TheBloke", "mradermacher", "NousResearch", "huihui-ai", "mlabonne", "failspy"),
    *(
        "lmstudio-community",
        "mlx-community",
        "second-state",
        "neuralmagic",
        "RedHatAI",
        "nvidia",
        "alpindale",
    ),
    *("QuantFactory", "QwenFan", "llama-lovers", "gemma-community", "openchat", "open-oss", "deepmind-fan"),
    *("meta-math", "mistral-community", "granite-lab", "google-bert", "googles-fan", "1aurent", "user0"),
)
ENDINGS = (
    *("", "-GGUF", "-AWQ", "-GPTQ-Int4", "-bnb-4bit", "-abliterated", "-uncensored", "-heretic", "-lora"),
)


@pytest.mark.parametrize("repo", IMITATIONS, ids=IMITATIONS.values())
def test_imitation(repo: str) -> None:
    """Each trick is told for the release that it is played on, and for no other."""
    assert len([release for release in RELEASES if imitation(repo, release)]) == 1


def test_names_of_honest_forks() -> None:
    """Of 30 owners × 8 models × 9 endings and two spellings none is accused, whatever the release."""
    names = [
        f"{owner}/{spelt}{ending}"
        for owner, release, ending in itertools.product(OWNERS, RELEASES, ENDINGS)
        for model in (release.partition("/")[2],)
        for spelt in (model, model.lower().replace("-", "_"))
    ]
    accused = {name for name in names for release in RELEASES if imitation(name, release)}
    assert len(names) > 4_000
    assert accused == set()


def test_versions_are_no_imitation() -> None:
    """Models whose names differ by one character are other models, and the publisher's own are its own."""
    for repo in (
        "x/Llama-3.2-8B-Instruct",
        "x/Qwen2-8B",
        "x/gemma-2-27b-it",
        "x/phi-3",
        "meta-llama/Llama-3.1-8B",
    ):
        assert not any(imitation(repo, release) for release in RELEASES)
    assert not any(imitation(one, other) for one, other in itertools.permutations(RELEASES, 2))


def test_names_of_the_population() -> None:
    """Nobody in the synthetic population is accused, hidden and odd forks included."""
    truth = populate(LoopbackHub(), repos=2_000, forks=1_000, seed=1)
    assert len(truth.facts) == 1_999
    assert [name for name in truth.facts if imitation(name, truth.release)] == []


IMITATOR = RepoId("1ab/guarded")


def imitating(**changes: object):  # type: ignore[no-untyped-def] # facts of the samples
    return facts(snapshot=replace(SNAPSHOT, repo=IMITATOR), **changes)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"weights": weights(EditKind.PARTIAL_FINETUNE)}, "misrepresented"),
        ({"weights": weights(EditKind.UNRELATED, lineage=LineageStatus.UNRELATED)}, "misrepresented"),
        ({"weights": weights(EditKind.IDENTICAL)}, "authentic"),
        ({"weights": weights(EditKind.QUANTIZED)}, "faithful-conversion"),
        ({"weights": NotReached("limited")}, "inconclusive"),
        ({"comparison": comparison(SafetyStatus.REMOVED, 0.9)}, "safety-removed"),
    ],
)
def test_a_name_alone_is_no_verdict(changes: dict[str, object], label: str) -> None:
    """It takes other weights as well; a faithful copy under a bad name is a faithful copy."""
    case = imitating(**changes)
    found = {finding.id: finding for finding in all_findings(case)}
    assert found["look-alike-name"].certainty == "consistent-with"
    assert decide(case, all_findings(case)).label == label


SAME_LICENCE = [
    ("apache-2.0", "Apache-2.0"),
    ("Apache License 2.0", "apache-2.0"),
    ("MIT License", "mit"),
    ("other: llama3.1", "llama3.1"),
    ("mit, apache-2.0", "apache-2.0, mit"),
    (None, "mit"),
    ("other", "other: qwen"),
    ("unknown", "mit"),
]
OTHER_LICENCE = [
    ("mit", "apache-2.0"),
    ("other: gemma", "other: qwen"),
    ("other: my-own", "apache-2.0"),
    ("cc-by-4.0", "cc-by-nc-4.0"),
    ("llama3.1", "llama3.2"),
    ("mit, apache-2.0", "mit"),
]


@pytest.mark.parametrize(("first", "second"), SAME_LICENCE)
def test_same_licence(first: str | None, second: str) -> None:
    """Spelling, order and silence are no change of licence."""
    assert not licence_differs(first, second)
    assert not licence_differs(second, first)


@pytest.mark.parametrize(("first", "second"), OTHER_LICENCE)
def test_other_licence(first: str, second: str) -> None:
    """Two stated licences that differ are a change, either way."""
    assert licence_differs(first, second)
    assert licence_differs(second, first)
