"""A repository as the API shows it: every property that can be asked for with `expand`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

from forkwatch.demo.hub.blobs import Blob
from forkwatch.demo.hub.card import RELATIONS
from forkwatch.demo.hub.repo import Repo, object_id
from forkwatch.demo.hub.state import HubState
from forkwatch.demo.hub.wire import Json


def date_text(date: datetime) -> str:
    """A date as the Hub writes it."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _base_models(repo: Repo, _: HubState) -> Json:
    facts = repo.head.facts
    if not facts.base_models:
        return None
    models = [{"_id": object_id(name), "id": name} for name in facts.base_models]
    return {"relation": facts.relation, "models": models}


def _children(repo: Repo, hub: HubState) -> Json:
    counts = Counter(child.head.facts.relation for child in hub.tagged(f"base_model:{repo.name}"))
    return {relation: counts[relation] for relation in RELATIONS}


def _safetensors(repo: Repo, _: HubState) -> Json:
    parameters = repo.head.facts.parameters
    return None if parameters is None else {"parameters": parameters, "total": sum(parameters.values())}


def _gguf(repo: Repo, _: HubState) -> Json:
    header = repo.head.facts.gguf
    if header is None:
        return None
    shown = {
        "total": header.total,
        "architecture": header.architecture,
        "context_length": header.context_length,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _transformers(repo: Repo, _: HubState) -> Json:
    facts = repo.head.facts
    if facts.library != "transformers" or facts.pipeline != "text-generation":
        return None
    return {
        "auto_model": "AutoModelForCausalLM",
        "pipeline_tag": facts.pipeline,
        "processor": "AutoTokenizer",
    }


_Property = Callable[[Repo, HubState], Json]

PROPERTIES: Mapping[str, _Property] = MappingProxyType(
    {
        "author": lambda repo, _: repo.author,
        "baseModels": _base_models,
        "cardData": lambda repo, _: repo.head.facts.card,
        "childrenModelCount": _children,
        "config": lambda repo, _: repo.head.facts.config,
        "createdAt": lambda repo, _: date_text(repo.created_at),
        "disabled": lambda repo, _: repo.disabled,
        "downloads": lambda repo, _: repo.downloads,
        "downloadsAllTime": lambda repo, _: repo.downloads,
        "evalResults": lambda _repo, _hub: [],
        "gated": lambda repo, _: "auto" if repo.gated else False,
        "gguf": _gguf,
        "inference": lambda _repo, _hub: None,
        "inferenceProviderMapping": lambda _repo, _hub: None,
        "lastModified": lambda repo, _: date_text(repo.head.date),
        "library_name": lambda repo, _: repo.head.facts.library,
        "likes": lambda repo, _: repo.likes,
        "mask_token": lambda _repo, _hub: None,
        "model-index": lambda _repo, _hub: None,
        "pipeline_tag": lambda repo, _: repo.head.facts.pipeline,
        "private": lambda repo, _: repo.private,
        "resourceGroup": lambda _repo, _hub: None,
        "safetensors": _safetensors,
        "sha": lambda repo, _: repo.head.id,
        "siblings": lambda repo, _: [{"rfilename": path} for path in repo.head.files],
        "spaces": lambda _repo, _hub: [],
        "tags": lambda repo, _: repo.head.facts.tags,
        "transformersInfo": _transformers,
        "trendingScore": lambda repo, _: repo.likes,
        "usedStorage": lambda repo, _: sum(blob.size for blob in repo.head.files.values()),
        "widgetData": lambda _repo, _hub: None,
    }
)
"""Every value of `expand`, by name; a property that is None is left out of the answer, as on the live Hub."""

DETAIL_ONLY = frozenset({"baseModels", "childrenModelCount", "usedStorage"})
"""Properties that the list endpoint refuses (huggingface_hub pull request 3182)."""


def describe(repo: Repo, hub: HubState, properties: Iterable[str]) -> dict[str, Json]:
    """`_id`, `id` and the named properties that the repository has."""
    shown: dict[str, Json] = {"_id": repo.object_id, "id": repo.name}
    for name in properties:
        value = PROPERTIES[name](repo, hub)
        if value is not None:
            shown[name] = value
    return shown


def sibling(path: str, blob: Blob) -> Json:
    """A file as `model_info(files_metadata=True)` shows it."""
    entry: dict[str, Json] = {"rfilename": path, "size": blob.size, "blobId": blob.git_oid}
    if blob.sha256 is not None:
        entry["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return entry
