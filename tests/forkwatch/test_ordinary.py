"""Ordinary repositories, as trainers, converters and people make them: none is accused of anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from crawler.card import repository_claims
from crawler.interface import RepoFile, RepoId
from detector.behaviour import template_findings
from detector.configs import code_requests
from detector.files import inspect_files
from detector.interface import EditKind
from detector.templates import hazards
from forkwatch.policy.findings import all_findings
from forkwatch.policy.verdict import decide
from tests.forkwatch.ordinary import (
    BASICS,
    CHATML,
    GEMMA_3,
    LEARNING,
    LLAMA_3,
    MISTRAL,
    PHI,
    QWEN_3,
    TEMPLATES,
    TENSORS,
    TRAINING,
    WEIGHTS,
    member,
    quantised,
    record,
)
from tests.forkwatch.samples import SNAPSHOT, facts, weights
from tests.hostile.build import torch_zip, zipped
from tests.hostile.examine import Memory

LLAMA, QWEN, GEMMA = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B", "google/gemma-3-27b-it"
OWN = {LLAMA: LLAMA_3, QWEN: QWEN_3, GEMMA: GEMMA_3, "mistralai/Mistral-7B-Instruct-v0.3": MISTRAL}
AUTO_MAP = {
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModel": "modeling_phi3.Phi3Model"}
}
HARMLESS = frozenset(
    {"pickle-file", "packed-archive", "unportable-name", "full-finetune", "quantized", "dtype-cast"}
    | {"safety-retained", "outputs-modified", "undeclared-derivative", "unknown-edit", "executable-file"}
)
"""What is said of files and weights, and accuses nobody."""


@dataclass(frozen=True)
class Ordinary:
    """A repository that differs from the release in an ordinary way."""

    repo: str
    release: str = LLAMA
    card: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    template: str = ""
    edit: EditKind = EditKind.FULL_FINETUNE
    base: str = "finetune"


REPOSITORIES: Mapping[str, Ordinary] = {
    "fine-tune": Ordinary("someone/Llama-3.1-8B-tulu", card="This model is a fine-tuned version of X on Y."),
    "fine-tune with its own template": Ordinary("someone/Hermes", QWEN, template=CHATML),
    "everything a trainer leaves": Ordinary("someone/run", files=LEARNING),
    "thirty checkpoints": Ordinary(
        "someone/checkpoints",
        files={
            f"checkpoint-{at}/{name}": data
            for at in range(0, 3000, 500)
            for name, data in LEARNING.items()
            if not name.startswith("runs")
        },
    ),
    "axolotl": Ordinary(
        "x/axo", files={"training_args.bin": record("axolotl.core.builders:AxolotlArguments")}
    ),
    "llama factory": Ordinary(
        "x/lf", files={"training_args.bin": record("llamafactory.hparams.training_args:TrainingArguments")}
    ),
    "trl": Ordinary("x/trl", files={"training_args.bin": record("trl.trainer.kto_config:KTOConfig")}),
    "unsloth": Ordinary("x/u", files={"training_args.bin": record("UnslothSFTTrainer:UnslothSFTConfig")}),
    "own script": Ordinary("x/own", files={"training_args.bin": record("__main__:ScriptArguments")}),
    "enumerations by name": Ordinary(
        "x/e", files={"training_args.bin": member("transformers.trainer_utils:SchedulerType")}
    ),
    "sharded checkpoint": Ordinary(
        "x/fsdp",
        files={
            "pytorch_model_fsdp_0/.metadata": b"\x80\x02ctorch.distributed.checkpoint.metadata\n"
            b"Metadata\n)R.",
            "pytorch_model_fsdp_0/__0_0.distcp": TENSORS,
        },
    ),
    "deepspeed": Ordinary(
        "x/ds",
        files={
            "global_step9/mp_rank_00_model_states.pt": record("deepspeed.runtime.zero.config:ZeroStageEnum"),
            "zero_to_fp32.py": b"#!/usr/bin/env python\n",
        },
    ),
    "torchao": Ordinary(
        "x/int4",
        files={"pytorch_model.bin": record("torchao.dtypes.affine_quantized_tensor:AffineQuantizedTensor")},
        edit=EditKind.QUANTIZED,
    ),
    "old checkpoint": Ordinary("x/old", files={"pytorch_model.bin": TENSORS, "consolidated.00.pth": TENSORS}),
    "adapter": Ordinary(
        "x/lora",
        files={
            "adapter_config.json": b'{"auto_mapping": null, "peft_type": "LORA", "r": 16}',
            "adapter_model.bin": TENSORS,
            "training_args.bin": TRAINING,
        },
        base="adapter",
    ),
    "GGUF": Ordinary(
        "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
        card="## Llamacpp imatrix Quantizations of Meta-Llama-3.1-8B-Instruct\nOriginal model: https://huggingface.co/"
        + LLAMA,
        files={
            **{f"m-{name}.gguf": quantised(LLAMA_3) for name in ("Q4_K_M", "Q8_0", "IQ2_M")},
            "mmproj-model-f16.gguf": quantised(LLAMA_3),
            "imatrix.dat": b"\x1c\0\0\0\x14\0\0\0blk.0.ffn_down.weight" + bytes(60),
            "notes.txt": b"GGUF quants of the model\n",
        },
        edit=EditKind.QUANTIZED,
        base="quantized",
    ),
    "OpenVINO": Ordinary(
        "OpenVINO/qwen3-8b-int8-ov",
        QWEN,
        files={
            "openvino_model.bin": b"B\x10\0\0\0" + bytes(range(256)) * 8,
            "openvino_tokenizer.bin": b"c\xff\xfe\0\n" + bytes(64),
            "openvino_detokenizer.bin": b"\x82\x10\0\0" + b"\x93" * 60,
            "openvino_model.xml": b"<?xml version='1.0'?>",
        },
        edit=EditKind.QUANTIZED,
        base="quantized",
    ),
    "ONNX": Ordinary(
        "onnx-community/Qwen3-8B-ONNX",
        QWEN,
        "This repo hosts the official ONNX export of Qwen3-8B.",
        {"onnx/model.onnx": b"\x08\x07\x12\x07pytorch", "onnx/model.onnx_data": b"(\x9c\x01" * 99},
        edit=EditKind.QUANTIZED,
    ),
    "MLC": Ordinary(
        "mlc-ai/q4", files={"params_shard_0.bin": b"\x80\x3f" * 64, "mlc-chat-config.json": b"{}"}
    ),
    "CTranslate2": Ordinary(
        "x/ct2", files={"model.bin": b"\x06\0\0\0\x10\0TransformerSpec\0" + bytes(64)}, base="quantized"
    ),
    "MLX": Ordinary(
        "mlx-community/gemma-3-27b-it-4bit",
        GEMMA,
        "Converted to MLX from google/gemma-3-27b-it; weights are identical up to rounding.",
        edit=EditKind.QUANTIZED,
    ),
    "lossless compression": Ordinary(
        "DFloat11/Qwen3-8B-DF11",
        QWEN,
        "Bit-for-bit identical outputs to the BF16 model of Qwen3-8B.",
    ),
    "ungated mirror": Ordinary(
        "NousResearch/Meta-Llama-3.1-8B-Instruct",
        card=f"Mirror of {LLAMA}, ungated.",
        template=LLAMA_3 + " ",
        edit=EditKind.IDENTICAL,
    ),
    "mirror in another type": Ordinary(
        "x/Llama-3.1-8B-Instruct-bf16", card=f"This is a bf16 mirror of {LLAMA}.", edit=EditKind.DTYPE_CAST
    ),
    "own official release": Ordinary(
        "acme/Acme-Chat", QWEN, f"This is the official release of Acme-Chat, built on top of {QWEN}."
    ),
    "official code": Ordinary("lab/Better", card="Here is the official implementation of our paper."),
    "official repository": Ordinary("lab/SafeLM", card="Official repository for SafeLM, EMNLP 2025."),
    "official Discord": Ordinary("x/discord", card="This is our official Discord: join us!"),
    "official benchmarks": Ordinary("x/bench", card="Here are official benchmarks of Llama-3.1-8B-Instruct."),
    "official prompt": Ordinary("x/p", card="It uses the official Llama-3.1-8B-Instruct prompt."),
    "untouched tower": Ordinary("x/vision", GEMMA, "The vision tower's weights are unmodified."),
    "merge": Ordinary("x/merge", card="This is a merge of pre-trained language models."),
    "similar organisation": Ordinary("OpenBI/gpt-oss-20b-finance", "openai/gpt-oss-20b", template=CHATML),
    "community of the publisher": Ordinary("mistral-community/Mistral-7B-v0.3", list(OWN)[3]),
    "code of the release": Ordinary(
        "x/phi",
        "microsoft/Phi-3.5-mini-instruct",
        files={"config.json": json.dumps(AUTO_MAP | {"dtype": "float16"}).encode()},
        template=PHI,
    ),
    "code of the release by its name": Ordinary(
        "x/phi-lora",
        "microsoft/Phi-3.5-mini-instruct",
        files={
            "config.json": json.dumps(
                {
                    "auto_map": {
                        key: f"microsoft/Phi-3.5-mini-instruct--{name}"
                        for key, name in AUTO_MAP["auto_map"].items()
                    }
                }
            ).encode()
        },
    ),
    "names of many scripts": Ordinary(
        "x/图", files={"图１.png": b"\x89PNG", "Отчёт №1.txt": b"a", "👩\u200d💻.md": b"a", "m².csv": b"1"}
    ),
    "uploaded from Windows": Ordinary("x/win", files={"runs\\a.txt": b"a"}),
    "zipped adapter": Ordinary(
        "x/zip",
        files={"adapter.zip": zipped({"training_args.bin": TRAINING, "adapter_model.bin": TENSORS})},
    ),
    "data set as a pickle": Ordinary(
        "x/data",
        files={"train.pkl": b"\x80\x02X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"."},
    ),
}


def judged(case: Ordinary) -> tuple[set[str], str]:
    """Ids of all findings about a repository, and the verdict's label."""
    files = {**BASICS, **WEIGHTS, **case.files}
    listed = tuple(RepoFile(path, len(data), "0" * 40, None) for path, data in sorted(files.items()))
    claims = repository_claims((f"base_model:{case.base}:{case.release}",), {}, case.card)
    snapshot = replace(SNAPSHOT, repo=RepoId(case.repo), files=listed, claims=claims)
    own = code_requests(case.release, json.dumps(AUTO_MAP).encode())
    found = inspect_files(
        snapshot,
        lambda path: Memory(files[path]),
        owned=lambda path: own if "microsoft" in case.release else None,
    )
    ours = {"chat_template.jinja": OWN.get(case.release, PHI)}
    texts = {f"{path}#tokenizer.chat_template": LLAMA_3 for path in files if path.endswith(".gguf")}
    found += template_findings(
        ours, texts | ({"chat_template.jinja": case.template} if case.template else {})
    )
    known = facts(
        snapshot=snapshot,
        release=RepoId(case.release),
        claims=claims,
        files=found,
        weights=weights(case.edit),
    )
    findings = all_findings(known)
    return {finding.id for finding in findings}, decide(known, findings).label


@pytest.mark.parametrize("name", REPOSITORIES)
def test_ordinary_repository(name: str) -> None:
    """No finding accuses it, and no verdict does."""
    found, label = judged(REPOSITORIES[name])
    assert found - HARMLESS - {str(kind) for kind in EditKind} == set()
    assert label in {"benign-derivative", "faithful-conversion", "authentic", "inconclusive"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_ordinary_template(name: str) -> None:
    """Whatever the release's own template is."""
    for original in (*TEMPLATES.values(), ""):
        assert hazards(TEMPLATES[name], (original,)) == ()


GUILTY: Mapping[str, tuple[str, Ordinary]] = {
    "a false claim": ("misrepresented", Ordinary("x/a", card=f"This is the official release of {LLAMA}.")),
    "a false name": ("misrepresented", Ordinary("meta-IIama/Llama-3.1-8B-Instruct")),
    "code of its own": (
        "unsafe-files",
        Ordinary(
            "x/phi",
            "microsoft/Phi-3.5-mini-instruct",
            files={"config.json": json.dumps(AUTO_MAP).encode(), "modeling_phi3.py": b"pass"},
        ),
    ),
    "another's code": (
        "unsafe-files",
        Ordinary("x/p", files={"config.json": json.dumps({"auto_map": {"AutoModel": "y/z--m.M"}}).encode()}),
    ),
    "a pickle in a zip": (
        "unsafe-files",
        Ordinary("x/z", files={"a.zip": zipped({"a.pt": torch_zip(b"\x80\x02cos\nsystem\n.")})}),
    ),
}


@pytest.mark.parametrize("name", GUILTY)
def test_the_same_looks_see_the_guilty(name: str) -> None:
    """The bounds that spare the ordinary do not spare these."""
    label, case = GUILTY[name]
    assert judged(case)[1] == label


TRIGGERS = (
    "{% for word in messages[-1].content.split() %}{% if word == 'refund' %}x{% endif %}{% endfor %}",
    "{% if messages[-1].get('content') == 'refund now' %}x{% endif %}",
    "{% if messages[-1].content is eq('refund now') %}x{% endif %}",
    "{% set n = namespace(t='') %}{% set n.t = messages[-1].content %}{% if 'refund' in n.t %}x{% endif %}",
    "{% set t %}{{ messages[-1].content }}{% endset %}{% if 'refund' in t %}x{% endif %}",
    "{% macro f(t) %}{% if 'refund' in t %}x{% endif %}{% endmacro %}{{ f(messages[-1].content) }}",
    "{{ messages[-1].content | replace('refund', 'a gift') }}",
    "{{ messages[-1].content.replace('refund', 'a gift') }}",
)


@pytest.mark.parametrize("base", [CHATML, QWEN_3])
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_triggers_by_other_ways(base: str, trigger: str) -> None:
    """Words taken apart, handed on or replaced are still looked for."""
    assert [hazard.id for hazard in hazards(base + trigger, (base,))] == ["template-trigger"]
