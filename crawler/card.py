"""What a repository says about its own origin: Hub metadata and sentences of its card, as `Claim`s.

The sentences matter because the metadata misleads: tools that strip refusals push the *parent's* card with
one sentence on top ("This is a decensored version of [X](…)"), so `base_model` then names the grandparent or
nothing, and the parent's own "official" prose comes along. Hence: a card that states a modification, or
metadata in which the author states a relation, never counts as a claim to be the release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from crawler.interface import Claim, InvalidRepoIdError, Relation, RepoId, parse_repo_id

MODIFICATION_TAGS = ("heretic", "abliterated", "uncensored", "decensored")
"""Tags by which uploaders announce removed refusals."""

_ID_LIKE = re.compile(r"https?://\S+|[\w.-]+/[\w.-]+")
_MAX_STATEMENT = 300
_MAX_CLAIMS = 16
_MAX_SENTENCE = 2000
_MAX_TEXT = 200_000
"""Characters of a card that are looked at; a statement of origin below that reaches no reader either."""

_ID = r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}"
_LINK = re.compile(rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/({_ID})(?![\w/])", re.ASCII)
_NOT_MODELS = frozenset(
    {"api", "blog", "collections", "datasets", "docs", "join", "learn", "papers", "posts", "spaces"}
)
_BARE = re.compile(
    r"(?:\b(?:of|from)|\b(?:based|built|trained) on|\b(?:adapter|quants?|gguf\w*|lora) for)\s+"
    rf"(?:the\s+|an?\s+)?(?:original\s+|official\s+)?(?:model\s+|weights\s+)?[\[`*_\"'(<]{{0,4}}({_ID})",
    re.ASCII | re.IGNORECASE,
)
_DERIVED = re.compile(
    r"\b(?:versions?|variants?|copy|copies|mirror|finetuned?|fine-tuned?|quants?|quanti[sz]ations?|quanti[sz]ed|gguf\w*|"
    r"merge|adapter|lora|conversion|converted|re-?upload(?:ed)?|derivative|derived|edition|based)\b"
    r"[^\n]{0,60}?\b(?:of|from|on|for)\b",
    re.IGNORECASE,
)
_STRIPPED = re.compile(
    r"\b(?:de-?censored|un-?censored|abliterat\w+|de-?restricted|unrestricted|jailbroken|heretic|"
    r"refusals? (?:removed|free))\b",
    re.IGNORECASE,
)
_MODIFIED = re.compile(
    r"\b(?:fine-?tun\w+|quanti[sz]\w+|quants?|gguf\w*|awq|gptq|exl2|merged?|lora|adapter|distil\w+|prun\w+|convert\w+|"
    r"conversion|modified|removed|derivative|(?:based|built|trained|start\w*|initiali[sz]ed) (?:up)?"
    r"(?:on|from|with)|trained|adapted|fixed|patched|changed|edited|extended|added|compress\w+|dfloat\w*|df11|"
    r"onnx|mlx|openvino|qat|export\w*|(?:bf|fp|int|f)\d+|\d-?bits?|"
    r"(?:except|but|without|with (?:a|an|the|my|our|some))\b)\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\b(?:github|gitlab|discord|website|homepage|blog|paper|code|codebase|implementation|leaderboard|benchmarks?|"
    r"evaluations?|results?|demo|spaces?|datasets?|splits?|cards?|templates?|prompts?|formats?|tokenizers?|"
    r"tower|encoder|other|rest|remaining|outputs?|documentation|docs|instructions?|guide|licen[sc]e|ollama)\b",
    re.IGNORECASE,
)
"""What else can be official or unchanged than the weights at hand."""
_OFFICIAL = re.compile(
    r"\b(?:this|here)\b[^\n]{0,60}?\b(?:is|are|contains?|hosts?|holds?|provides?|has)\b[^\n]{0,40}?\bofficial\s+"
    r"(?:[\w.-]+\s+){0,4}?(?:weights?|models?|checkpoints?|releases?|versions?|repo(?:sitory)?|uploads?|cop(?:y|ies)|mirror)\b"
    r"|^\W{0,6}(?:the\s+)?official\s+(?:\w+\s+){0,3}(?:of|for|by|from)\b",
    re.IGNORECASE,
)
_COPY = re.compile(
    r"\b(?:mirror|re-?upload(?:ed)?|(?:exact|identical|verbatim|faithful|1:1|full)\s+cop(?:y|ies))\s+(?:of|from)\b"
    r"|\b(?:bit|byte)[- ](?:for[- ](?:bit|byte)|identical|exact)\b"
    r"|\b(?:unmodified|unaltered|untouched)\s+(?:\w+\s+){0,2}"
    r"(?:copy|weights|model|version|release|re-?upload|mirror|checkpoint)\b"
    r"|\bweights\s+are\s+(?:unmodified|unaltered|untouched|identical)\b",
    re.IGNORECASE,
)
_ABOUT_OTHERS = re.compile(r"\b(?:of|for|from) (?:this|our|my|the above)\b", re.IGNORECASE)
"""Points at this repository's own children: "GGUF quants of this model"."""
_POINTER = re.compile(
    r"\b(?:available|can be found|see|check out|thanks to|visit|download|refer to|compared?)\b", re.IGNORECASE
)
_NEGATED = re.compile(
    r"\b(?:not|no|never|neither|un-?official(?:ly)?|no longer|isn.t|aren.t)\b", re.IGNORECASE
)
_RELATIONS = (
    (Relation.QUANTIZED, re.compile(r"\b(?:quanti[sz]\w+|quants?|gguf\w*|awq|gptq|exl2)\b", re.IGNORECASE)),
    (Relation.ADAPTER, re.compile(r"\b(?:adapter|lora)\b", re.IGNORECASE)),
    (Relation.MERGE, re.compile(r"\bmerged?\b", re.IGNORECASE)),
    (Relation.FINETUNE, re.compile(r"\bfine-?tun\w+\b", re.IGNORECASE)),
)
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def repository_claims(tags: Iterable[str], card: Mapping[str, object], readme: str = "") -> tuple[Claim, ...]:
    """Every claim of one repository, most explicit first, without repetitions, at most 16.

    Args:
        tags: the Hub's tags; `base_model:<relation>:<id>` is the Hub's own reading of the card.
        card: the card's front matter as the Hub parsed it; any value may have any type.
        readme: the card's text.
    """
    tags = tuple(tags)
    authored = _relation(card.get("base_model_relation"))
    claims = [*_metadata_claims(tags, card, authored), *_statements(readme)]
    announced = any(tag.casefold() in MODIFICATION_TAGS for tag in tags)
    if authored or announced or any(_STRIPPED.search(claim.statement) for claim in claims):
        claims = [claim for claim in claims if not claim.faithful]
    return tuple(dict.fromkeys(claims))[:_MAX_CLAIMS]


def tag_claims(tags: Iterable[str]) -> tuple[Claim, ...]:
    """The claims that a listing's tags alone carry."""
    return repository_claims(tags, {})


def statement_claims(readme: str) -> tuple[Claim, ...]:
    """The claims that a card's prose makes, without its front matter."""
    return repository_claims((), {}, readme)


def reproduction_claim(text: str) -> Claim | None:
    """What a `reproduce.json` (version 2 or 3) states: the true parent, and that a method was applied to it.

    The statement counts the parameters of the method and the file hashes; it repeats no value of them but the
    first hash. None for what is not such a file.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    settings = document.get("settings") if isinstance(document, dict) else None
    named = settings.get("model") if isinstance(settings, dict) else None
    base = repo_or_none(named) if isinstance(named, str) else None
    if base is None:
        return None
    version, parameters, hashes = (document.get(key) for key in ("version", "parameters", "hashes"))
    parts = [f"reproduce.json: settings.model {base}"]
    if isinstance(version, str | int) and re.fullmatch(r"[0-9.]{1,8}", str(version)):
        parts[0] = f"reproduce.json (version {version}): settings.model {base}"
    if isinstance(parameters, dict) and parameters:
        parts.append("parameters " + ", ".join(sorted(_word(key) for key in parameters)[:6]))
    if isinstance(hashes, dict):
        sums = [
            value
            for _, value in sorted(hashes.items())
            if isinstance(value, str) and _SHA256.fullmatch(value)
        ]
        if sums:
            parts.append(f"{len(sums)} sha256, first {sums[0]}")
    return Claim(base, None, _quoted("; ".join(parts)))


def _metadata_claims(
    tags: tuple[str, ...], card: Mapping[str, object], authored: Relation | None
) -> Iterator[Claim]:
    inferred: dict[RepoId, Relation | None] = {}
    for tag in tags:
        parts = tag.split(":")
        if parts[0] != "base_model" or len(parts) not in {2, 3} or (base := repo_or_none(parts[-1])) is None:
            continue
        inferred[base] = (_relation(parts[1]) if len(parts) == 3 else None) or inferred.get(base)
    declared = card.get("base_model")
    listed = declared if isinstance(declared, list) else [declared]
    named = [base for item in listed if isinstance(item, str) and (base := repo_or_none(item)) is not None]
    for base in dict.fromkeys((*named, *inferred)):
        relation = authored or inferred.get(base)
        yield Claim(base, relation, f"base_model: {base}" + (f" ({relation})" if relation else ""))


def _statements(readme: str) -> Iterator[Claim]:
    """Claims made in prose, one a sentence."""
    body = _FRONT_MATTER.sub("", readme[:_MAX_TEXT].replace("\r\n", "\n"), count=1)
    for raw in _SENTENCE_END.split(body):
        sentence = " ".join(raw[:_MAX_SENTENCE].split())
        if claim := _read_sentence(sentence):
            yield claim


def _read_sentence(sentence: str) -> Claim | None:
    if _ABOUT_OTHERS.search(sentence):
        return None
    derived = _DERIVED.search(sentence)
    stripped, modified = _STRIPPED.search(sentence), _MODIFIED.search(sentence)
    excused = stripped or modified or _NEGATED.search(sentence) or _ASIDE.search(_ID_LIKE.sub("", sentence))
    faithful = not excused and bool(_OFFICIAL.search(sentence) or _COPY.search(sentence))
    tells = faithful or stripped or (derived and not _POINTER.search(sentence))
    base = _target(sentence) if tells else None
    if not (base or faithful or (stripped and derived)):
        return None
    relation = next((name for name, words in _RELATIONS if words.search(sentence)), None)
    return Claim(base, relation, _quoted(sentence), faithful)


def _target(sentence: str) -> RepoId | None:
    """The repository a sentence points at: the first model link, else an id after "of" or the like."""
    for match in _LINK.finditer(sentence):
        if match[1].partition("/")[0].casefold() not in _NOT_MODELS and (
            repo := repo_or_none(match[1].rstrip("."))
        ):
            return repo
    bare = _BARE.search(sentence)
    return repo_or_none(bare[1].rstrip(".")) if bare else None


def _quoted(sentence: str) -> str:
    return sentence if len(sentence) <= _MAX_STATEMENT else sentence[: _MAX_STATEMENT - 1] + "…"


def repo_or_none(text: str) -> RepoId | None:
    """A model id, or nothing."""
    try:
        return parse_repo_id(text)
    except InvalidRepoIdError:
        return None


def _word(text: str) -> str:
    """A JSON key as a plain word: it came from the Hub."""
    return re.sub(r"\W", "", text, flags=re.ASCII)[:40]


def _relation(value: object) -> Relation | None:
    return Relation(value) if isinstance(value, str) and value in set(Relation) else None
