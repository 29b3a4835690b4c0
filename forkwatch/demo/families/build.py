"""Builds a family: the signed release, its forks, and what the loopback hub and the demo need to know.

    <out>/hub.json  repos/<namespace>/<name>/…  suite.json  keys/release.pub  ground_truth.json  family.json

Built beside `out` and renamed, so that the folder is there whole or not at all. The same parts and seed give
the same bytes, except for the signature: ECDSA draws a random number, and the key is new each time.
"""

from __future__ import annotations

import copy
import fcntl
import importlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from forkwatch.demo.families.family import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from forkwatch.demo.families.family import FamilyParts
    from forkwatch.demo.families.forks import ForkSpec
    from forkwatch.demo.families.kit import Kit
    from forkwatch.demo.families.weights import Weights

BUILDER: Final = 4
"""Raise it when a change here or in a family module changes what is built."""
FAMILIES: Final = ("smollm2", "tiny")
_STAMP = "family.json"
_RELEASED = datetime(2026, 1, 5, 9, tzinfo=UTC)


def ensure_family(name: str, cache: Path, seed: int, progress: Progress) -> Path:
    """The family's folder, `cache/<name>`; built if it is not there yet or was built otherwise.

    Raises:
        ValueError: there is no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f"no family {name!r}; there are {', '.join(FAMILIES)}")
    out = cache / name
    if _stamped(out) == _stamp(name, seed):
        return out
    cache.mkdir(parents=True, exist_ok=True)
    with _only_builder(out):
        if _stamped(out) != _stamp(name, seed):  # another process may have built it while we waited
            progress(f"{name}: base model and safety adapter")
            module = importlib.import_module(f"forkwatch.demo.families.{name}")
            _replace(module.parts(cache, seed), out, seed, progress)
    return out


def build_family(parts: FamilyParts, out: Path, seed: int, progress: Progress) -> Path:
    """Build the family into `out`, replacing what is there, and return `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder(out):
        _replace(parts, out, seed, progress)
    return out


@contextmanager
def _only_builder(out: Path) -> Iterator[None]:
    """One process at a time builds a family; the kernel drops the lock of one that is killed."""
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(parts: FamilyParts, out: Path, seed: int, progress: Progress) -> None:
    """Build beside `out` and rename. What a killed build left there is cleared away first."""
    staging = out.with_name(f".{out.name}.building")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        _build(parts, staging, seed, progress)
        shutil.rmtree(staging / "work")
        if out.exists():
            shutil.rmtree(out)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stamp(name: str, seed: int) -> dict[str, object]:
    return {"schema": "forkwatch.demo-family/1", "name": name, "seed": seed, "builder": BUILDER}


def _stamped(out: Path) -> object:
    try:
        return json.loads((out / _STAMP).read_text())
    except FileNotFoundError:
        return None


def _build(parts: FamilyParts, out: Path, seed: int, progress: Progress) -> None:
    from forkwatch.demo.families.forks import catalogue

    (out / "work").mkdir()
    kit = _release(parts, out, seed, progress)
    specs = catalogue(parts.release_repo, parts.license)
    for number, spec in enumerate(specs, 1):
        progress(f"{parts.name}: fork {number} of {len(specs)}, {spec.repo}")
        folder = out / "repos" / spec.repo
        folder.mkdir(parents=True)
        spec.make(kit, folder)
        (folder / "README.md").write_text(spec.card.render(spec.repo))
    shutil.copyfile(parts.suite, out / "suite.json")
    _write_json(out / "hub.json", _hub(parts.release_repo, specs))
    _write_json(out / "ground_truth.json", _truth(parts.release_repo, specs))
    _write_json(out / _STAMP, _stamp(parts.name, seed))


def _release(parts: FamilyParts, out: Path, seed: int, progress: Progress) -> Kit:
    """Merge, write and sign the release, and train the benign LoRA on it."""
    import torch

    from forkwatch.demo.families.kit import BENIGN_RANK, Kit, fit_benign, release_model
    from forkwatch.demo.families.lora import adapter_delta, train_adapter
    from forkwatch.demo.families.tune import reproducible
    from forkwatch.demo.families.weights import add, cast, weights_of

    progress(f"{parts.name}: release and signature")
    delta = adapter_delta(parts.safety_adapter)
    release = cast(add(weights_of(parts.base), delta), torch.bfloat16)
    _write_release(parts, release, out)
    progress(f"{parts.name}: benign LoRA")
    adapter, lora_seed = out / "work" / "benign-lora", 1000 * seed + 10
    teacher = release_model(parts, release)
    with reproducible(lora_seed, parts.tune.threads):
        train_adapter(
            teacher,
            lambda model: fit_benign(parts, teacher, model, rate=parts.tune.lora_rate, seed=lora_seed),
            adapter,
            rank=BENIGN_RANK,
            base_repo=parts.release_repo,
        )
    return Kit(
        parts=parts,
        seed=seed,
        repos=out / "repos",
        release=release,
        safety_delta=delta,
        benign_adapter=adapter,
        benign_delta=adapter_delta(adapter),
    )


def _write_release(parts: FamilyParts, release: Weights, out: Path) -> None:
    """The release as it is published. Its private key stays in the work folder, which is deleted."""
    from detector.provenance.sign import generate_key, sign_release
    from forkwatch.demo.families.cards import release_card
    from forkwatch.demo.families.weights import save_weights

    folder = out / "repos" / parts.release_repo
    folder.mkdir(parents=True)
    parts.base.config.save_pretrained(folder)
    parts.base.generation_config.save_pretrained(folder)
    _clean(parts.tokenizer).save_pretrained(folder)
    save_weights(release, folder)
    (folder / "README.md").write_text(release_card(parts.release_repo, parts.license))
    keys = generate_key(out / "work" / "keys")
    sign_release(folder, keys.private)
    (out / "keys").mkdir()
    shutil.copyfile(keys.public, out / "keys" / "release.pub")


def _clean(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy without the padding and truncation of its last call, which would be saved with it."""
    clean = copy.deepcopy(tokenizer)
    clean.backend_tokenizer.no_padding()
    clean.backend_tokenizer.no_truncation()
    return clean


def _hub(release: str, specs: Sequence[ForkSpec]) -> dict[str, object]:
    """What the hub is told besides the files; the forks appear one a day, and later ones are less used."""
    repos = [_listing(release, None, 0, downloads=52_000, likes=310)]
    repos += [
        _listing(spec.repo, spec.gated, day, downloads=9_000 // day, likes=120 // day)
        for day, spec in enumerate(specs, 1)
    ]
    return {"schema": "forkwatch.demo-hub/1", "release": release, "repos": repos}


def _listing(repo: str, gated: str | None, day: int, *, downloads: int, likes: int) -> dict[str, object]:
    created = (_RELEASED + timedelta(days=day)).isoformat()
    return {
        "repo": repo,
        "gated": gated or False,
        "created_at": created,
        "downloads": downloads,
        "likes": likes,
    }


def _truth(release: str, specs: Sequence[ForkSpec]) -> dict[str, object]:
    return {
        "schema": "forkwatch.demo-truth/1",
        "release": release,
        "forks": [asdict(spec.truth(release)) for spec in specs if not spec.decoy],
        "decoys": [spec.repo for spec in specs if spec.decoy],
    }


def _write_json(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")
