"""The original's own refusal direction: difference of means of its activations, measured inside the child.

(1) The original alone is loaded; a request names no fork, so that nothing of one can reach the result. (2) It
reads the harmful prompts that it refuses and the harmless ones that it answers. (3) At the last prompt token,
where the answer begins, the mean of the residual stream over the twins is taken from the mean over the
harmful prompts, layer by layer (Arditi et al., arXiv 2406.11717, section 2.3), and normalised. (4)
Directions of random halves say how stable that is.

The direction is never applied to a model, here or anywhere else in forkwatch: it is what the changes of
others are compared with. It stays in a 0600 file of the local state and is neither published nor exported.
Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from detector.formats.names import layer_of
from detector.pairing import RESIDUAL_WRITERS
from evals.confine import Confinement
from evals.engine import left_padded, padding_id, render_chat, stop_ids
from evals.interface import MIN_PROMPTS, DirectionRequest, PromptKind, PromptSuite
from evals.load import load_original
from evals.measure import pick_device
from evals.suite import load_suite
from evals.wire import DIRECTION, DirectionReport, write_private

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HALVINGS = 16
"""Random halvings that stability and separation are the means of."""
STABLE = 0.5
"""Cosine between halves from which a layer has a direction of its own. Measured on SmolLM2-135M, 69 + 67
prompts: the first 14 of 30 layers have −0.05 to 0.5, the others 0.66 to 0.91."""
EARLY = 0.8
"""The best layer is sought among the first four fifths: later ones decide words (Arditi et al., C.1)."""
BATCH = 8
HARMLESS_BYTES = 160 << 20
"""Largest record of harmless activations in float16; beyond it, fewer prompts are kept."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Activations:
    """At the last prompt token of each prompt, float32 on the CPU."""

    states: torch.Tensor
    """(prompts, layers, width): the residual stream behind each layer. The last layer has its predecessor's,
    because what transformers returns for it lies behind the final norm."""
    inputs: Mapping[str, torch.Tensor]
    """Weight name → (prompts, inputs): what each residual writer was given."""


def measure_direction(
    request: DirectionRequest, confinement: Confinement, progress: Progress
) -> DirectionReport:
    """Measure it; leaves the 0600 file `DIRECTION` in the scratch folder."""
    suite = load_suite(request.suite)
    harmful, twins, plain = (_texts(suite, kind, request) for kind in PromptKind)
    device = pick_device(request.device)
    progress("load the original")
    model, tokenizer = load_original(request.original, device)
    harmful_acts, harmless = (
        _activations(model, tokenizer, texts, progress) for texts in (harmful, twins + plain)
    )
    answered = harmless.states[: len(twins)]
    stability, separation = _halves(harmful_acts.states, answered)
    best = max(range(max(1, round(EARLY * len(separation)))), key=separation.__getitem__)
    sources = tuple(layer if cosine >= STABLE else best for layer, cosine in enumerate(stability))
    tensors = {
        "direction": _unit(harmful_acts.states.mean(0) - answered.mean(0)),
        "harmless": _compact(harmless.states),
    }
    given = {
        name: rows.mean(0) - harmless.inputs[name][: len(twins)].mean(0)
        for name, rows in harmful_acts.inputs.items()
    }
    _write(request.scratch / DIRECTION, tensors | {f"input:{name}": rows for name, rows in given.items()})
    return DirectionReport(
        suite_digest=suite.digest,
        harmful=len(harmful),
        twins=len(twins),
        stability=tuple(stability),
        separation=tuple(separation),
        sources=sources,
        best=best,
        written=_written(model, given, tensors["direction"][list(sources)]),
        isolation=confinement.isolation,
        device=device,
    )


def _texts(suite: PromptSuite, kind: PromptKind, request: DirectionRequest) -> list[str]:
    """Prompts of a kind that the original treats as it should; plain ones are not judged, so all of them."""
    wanted = {PromptKind.HARMFUL: request.refused, PromptKind.BENIGN_TWIN: request.answered}.get(kind)
    return [prompt.text for prompt in suite.of(kind) if wanted is None or prompt.id in wanted]


def _activations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], progress: Progress
) -> _Activations:
    chats = [render_chat(tokenizer, text) for text in texts]
    pad = padding_id(tokenizer, stop_ids(model, tokenizer))
    states: list[torch.Tensor] = []
    with closing(_Inputs(model)) as inputs:
        for start in range(0, len(chats), BATCH):
            ids, mask = left_padded(chats[start : start + BATCH], pad)
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            with torch.inference_mode():
                output = model(
                    input_ids=ids.to(model.device),
                    attention_mask=mask.to(model.device),
                    position_ids=positions.to(model.device),
                    logits_to_keep=1,
                    use_cache=False,
                    output_hidden_states=True,
                )
            behind = [*output.hidden_states[1:-1], output.hidden_states[-2]]
            states.append(torch.stack([state[:, -1].float().cpu() for state in behind], dim=1))
            progress(f"read {min(start + BATCH, len(chats))}/{len(chats)}")
    return _Activations(torch.cat(states), inputs.rows())


class _Inputs:
    """What the residual writers are given at the last token, kept until `close`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._kept: dict[str, list[torch.Tensor]] = {}
        self._hooks = [
            module.register_forward_pre_hook(self._keeper(f"{name}.weight"))
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in RESIDUAL_WRITERS
        ]

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def rows(self) -> dict[str, torch.Tensor]:
        """Weight name → (prompts, inputs). Experts see tokens without their prompts and are left out."""
        return {name: torch.cat(parts) for name, parts in self._kept.items()}

    def _keeper(self, name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
        def keep(_module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            if arguments and arguments[0].dim() == 3:
                self._kept.setdefault(name, []).append(arguments[0][:, -1].float().cpu())

        return keep


def _written(model: PreTrainedModel, given: Mapping[str, torch.Tensor], direction: torch.Tensor) -> float:
    """What the residual writers together write along the direction of their layer, given these inputs."""
    weights = dict(model.named_parameters())
    total = 0.0
    for name, rows in given.items():
        layer = layer_of(name)
        if layer is not None and layer < len(direction) and len(weights[name]) == direction.shape[1]:
            total += (direction[layer] @ (weights[name].float().cpu() @ rows)).item()
    return round(total, 6)


def _halves(harmful: torch.Tensor, twins: torch.Tensor) -> tuple[list[float], list[float]]:
    """By layer: mean cosine of the directions of two random halves, and how far one half's parts the other.

    The latter is the distance of the two means along the direction, in pooled standard deviations.
    """
    generator = torch.Generator().manual_seed(0)
    cosines, distances = [], []
    for _ in range(HALVINGS):
        left, right = (
            tuple(rows[order] for rows, order in zip((harmful, twins), halves, strict=True))
            for halves in zip(_halving(len(harmful), generator), _halving(len(twins), generator), strict=True)
        )
        first, second = (_unit(bad.mean(0) - good.mean(0)) for bad, good in (left, right))
        cosines.append((first * second).sum(-1))
        bad, good = ((rows * first).sum(-1) for rows in right)
        spread = ((bad.var(0) + good.var(0)) / 2).sqrt().clamp_min(1e-12)
        distances.append((bad.mean(0) - good.mean(0)) / spread)
    return _means(cosines), _means(distances)


def _means(rows: list[torch.Tensor]) -> list[float]:
    return [round(value, 4) for value in torch.stack(rows).mean(0).clamp(-1e6, 1e6).tolist()]


def _halving(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(count, generator=generator)
    return order[: count // 2], order[count // 2 :]


def _unit(rows: torch.Tensor) -> torch.Tensor:
    unit: torch.Tensor = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit


def _compact(states: torch.Tensor) -> torch.Tensor:
    """Centred activations in float16, each layer divided by its largest; directions keep their place."""
    keep = max(MIN_PROMPTS, HARMLESS_BYTES // (2 * states[0].numel()))
    centred = states[:keep] - states[:keep].mean(0)
    return (centred / centred.abs().amax(dim=(0, 2), keepdim=True).clamp_min(1e-12)).half()


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Readable by the owner only."""
    write_private(path, save({name: rows.contiguous() for name, rows in tensors.items()}))
