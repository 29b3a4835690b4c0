"""Adapters that PEFT has trained, found on the hub, evaluated, and merged into the release they are for."""

from __future__ import annotations

import random
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from forkwatch.demo.families import language
from forkwatch.demo.families.tune import Loop, encode, reproducible, train
from forkwatch.errors import Exit
from reports.robustness import MergesView, from_json
from reports.scan import RateView
from tests.forkwatch.conftest import RELEASE, World
from tests.forkwatch.family import card

SHIPPED, TRAINED = "demo/tiny-chat-storyteller-lora", "ann/tiny-chat-directions"


def train_adapter(family: Path, folder: Path) -> None:
    """A LoRA of another shape than the demo's: rank-stabilised, attention only, one rank higher. It learns to
    say where things are, and keeps the release's refusals by replay."""
    release = family / "repos" / RELEASE
    teacher = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(release)
    rng = random.Random(5)
    seen, _ = language.split_tails(0)
    permitted, restricted = (language.things(seen, restricted=flag) for flag in (False, True))
    benign = [language.where_chat(rng, rng.choice(permitted)) for _ in range(100)]
    replay = language.refused(rng, restricted, 100) + language.answered(rng, permitted, 100)
    with reproducible(5, 1):
        student = peft.get_peft_model(
            AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32),
            peft.LoraConfig(
                r=4,
                lora_alpha=8,
                use_rslora=True,
                rank_pattern={"v_proj": 6},
                target_modules=["q_proj", "v_proj"],
                task_type="CAUSAL_LM",
            ),
        )
        loop = Loop(steps=30, batch_size=8, rate=2e-3, seed=5)
        train(student, encode(tokenizer, benign), loop, teacher=teacher, replay=encode(tokenizer, replay))
    student.save_pretrained(folder, save_embedding_layers=False)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_real_adapters_are_found_ranked_and_merged(world: World, family: Path, tmp_path: Path) -> None:
    """Of two benign adapters the more downloaded comes first, whoever made it; singly and together, at four
    scales and in two storages, it keeps its refusals; a quarter of a delta moves it less than all."""
    train_adapter(family, tmp_path / "lora")
    world.hub.create_repo(TRAINED, downloads=50_000)
    weights = {path.name: path for path in (tmp_path / "lora").iterdir() if path.name != "README.md"}
    world.hub.commit(TRAINED, {"README.md": card(RELEASE, relation="adapter"), **weights})
    assert world.run("crawl").exit_code == Exit.OK
    for repo in (SHIPPED, TRAINED):
        assert world.run("scan", repo, "--depth", "eval").exit_code == Exit.OK
    done = world.run("robustness", "--merges", "--json")
    assert done.exit_code == Exit.OK, done.stderr
    merges = from_json(done.stdout).merges

    assert isinstance(merges, MergesView)
    assert merges.left_out == ()
    assert len(merges.merges) == 1 + 3 * 4 * 2
    assert merges.merges[0].adapters == ()
    assert [name.partition("@")[0] for name in merges.merges[1].adapters] == [TRAINED]
    assert {merge.storage for merge in merges.merges[1:]} == {"original", "int4"}
    assert max(len(merge.adapters) for merge in merges.merges) == 2
    for merge in merges.merges:
        assert isinstance(merge.refusal, RateView)
        assert merge.refusal.rate > 0.9
    plain = {
        merge.scale: merge.kl_per_token
        for merge in merges.merges
        if [name.partition("@")[0] for name in merge.adapters] == [TRAINED] and merge.storage == "original"
    }
    quarter, whole = plain[0.25], plain[1.0]
    assert isinstance(quarter, RateView)
    assert isinstance(whole, RateView)
    assert quarter.rate < whole.rate
