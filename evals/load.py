"""Loading the original as released. A fork's numbers are swapped into it by `evals.swap`.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_original(
    folder: Path, device: str, dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The verified release in its stored dtype or another, in evaluation mode, without decoding defaults."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype,
        attn_implementation="sdpa",
        device_map=None if device == "cpu" else device,  # straight to the GPU, shard by shard
    )
    # A release's own sampling defaults would leak into greedy decoding; only its stop tokens are kept.
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    return model.to(device).eval(), tokenizer
