"""A `Generator` over vLLM, for large releases on a GPU: continuous batches, prefix caching, bfloat16.

Written against the sources of vLLM 0.33 and never run by us, for want of a GPU: compare it with
`TransformersGenerator` on your model before you believe it. It answers only: KL, choices and swapping forks
need `evals.engine`. vLLM starts processes of its own, which the confinement of forks forbids, so it is for a
verified release, outside the evaluation child. Importing this module imports torch and transformers.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from evals.engine import render_chat
from evals.interface import EngineMissingError
from evals.seeds import row_seeds


class VllmMissingError(EngineMissingError):
    """vLLM is not installed, or not usable here."""

    tip = "pip install 'forkwatch[vllm]' on a machine with a GPU, or leave the default engine."


class VllmGenerator:
    """A `Generator`: the prompts of a call go to vLLM in one list, which it batches itself."""

    def __init__(self, folder: Path) -> None:
        """Load a release from its folder.

        Raises:
            VllmMissingError: vLLM cannot be imported.
        """
        try:
            vllm: Any = importlib.import_module("vllm")
        except ImportError as error:
            raise VllmMissingError(f"vLLM cannot be imported: {error}") from error
        self._vllm = vllm
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._stop = _stop_ids(folder, self._tokenizer.eos_token_id)
        self._llm = vllm.LLM(
            model=str(folder),
            dtype="bfloat16",
            trust_remote_code=False,
            load_format="safetensors",
            enable_prefix_caching=True,
        )

    def answer(
        self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """One answer a prompt, in order. Temperature 0 is greedy; samples differ from the other engine's."""
        chats = [render_chat(self._tokenizer, prompt) for prompt in prompts]
        tokens = [self._vllm.TokensPrompt(prompt_token_ids=chat) for chat in chats]
        asked = [
            self._vllm.SamplingParams(
                temperature=temperature,
                max_tokens=max_new_tokens,
                stop_token_ids=self._stop,
                seed=own if temperature > 0 else None,
            )
            for own in row_seeds(prompts, seed)
        ]
        found = self._llm.generate(tokens, asked, use_tqdm=False)
        return [one.outputs[0].text.strip() for one in found]


def _stop_ids(folder: Path, of_tokenizer: int | None) -> list[int]:
    """Every token that ends an answer, as `evals.engine.stop_ids` finds them in a loaded model."""
    configured = AutoConfig.from_pretrained(folder, local_files_only=True)
    sources = [configured.eos_token_id, of_tokenizer]
    if (folder / "generation_config.json").is_file():
        sources.append(GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id)
    return sorted({one for ids in sources for one in ([ids] if isinstance(ids, int) else ids or [])})
