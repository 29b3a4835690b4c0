"""The words of the site, in one place: what a verdict, a certainty or an edit kind is called and means."""

from __future__ import annotations

from dataclasses import dataclass

from reports.scan import CertaintyName, VerdictLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictWord:
    """How a verdict is shown: always icon and title, colour only on top."""

    label: VerdictLabel
    title: str
    meaning: str
    attention: bool
    """Somebody should look at it and decide."""


_VERDICTS = (
    VerdictWord(
        label="authentic",
        title="Authentic",
        meaning="Every weight file has the exact bytes of the original that it was compared with.",
        attention=False,
    ),
    VerdictWord(
        label="faithful-conversion",
        title="Faithful conversion",
        meaning="The original's values in another container or precision; nothing else was found to differ.",
        attention=False,
    ),
    VerdictWord(
        label="benign-derivative",
        title="Benign derivative",
        meaning="The model was changed, and its refusals were measured to hold.",
        attention=False,
    ),
    VerdictWord(
        label="safety-degraded",
        title="Safety degraded",
        meaning="It was measured to refuse clearly less often than the original on the same prompts.",
        attention=True,
    ),
    VerdictWord(
        label="safety-removed",
        title="Safety removed",
        meaning="Most of the original's refusals are gone, as measured on the same prompts.",
        attention=True,
    ),
    VerdictWord(
        label="misrepresented",
        title="Misrepresented",
        meaning="It claims to be the release, or a faithful copy of it, and is not.",
        attention=True,
    ),
    VerdictWord(
        label="unsafe-files",
        title="Unsafe files",
        meaning="It contains files that can run code when loaded. They were not loaded.",
        attention=True,
    ),
    VerdictWord(
        label="unrelated",
        title="Unrelated",
        meaning="Its weights do not derive from the release, whatever its card says.",
        attention=False,
    ),
    VerdictWord(
        label="inconclusive",
        title="Inconclusive",
        meaning="Not enough could be established; the page says why. It is not a clean bill.",
        attention=False,
    ),
)
VERDICTS: dict[VerdictLabel, VerdictWord] = {word.label: word for word in _VERDICTS}
"""Every verdict, in the order in which they are explained and counted."""

CERTAINTIES: dict[CertaintyName, tuple[str, str]] = {
    "proved": ("Proved", "Reproduced from bytes; anybody with the same files gets the same answer."),
    "consistent-with": (
        "Consistent with the evidence",
        "The measurements fit this explanation. Others remain possible.",
    ),
    "unknown": ("Unknown", "Not established either way."),
}

EDITS: dict[str, tuple[str, str]] = {
    "identical": ("Identical", "Same bytes as the original."),
    "repackaged": ("Repackaged", "Same values, other files: resharded, renamed or in another container."),
    "dtype-cast": ("Precision cast", "Values equal after rounding to a narrower number type."),
    "quantized": ("Quantized", "Values on a quantisation grid, with the error that scheme predicts."),
    "adapter": ("Adapter", "A PEFT adapter on its own, to be applied to a base model."),
    "low-rank-merge": ("Low-rank merge", "The change has a small rank, as a merged adapter leaves behind."),
    "directional-edit": (
        "Directional edit",
        "Few directions were changed in the matrices that write to the residual stream.",
    ),
    "full-finetune": ("Full fine-tune", "A dense change over all layers."),
    "partial-finetune": ("Partial fine-tune", "A dense change over some layers or modules."),
    "merge": ("Merge", "Combined with the weights of another model."),
    "layer-surgery": ("Layer surgery", "Layers were dropped, repeated or reordered."),
    "vocabulary-change": (
        "Vocabulary change",
        "Rows of the embeddings or the head were added, removed or moved.",
    ),
    "template-change": ("Template change", "The chat template differs; the weights may not."),
    "config-change": ("Configuration change", "A configuration file differs."),
    "sparse-patch": ("Sparse patch", "Isolated blocks of numbers were changed."),
    "unrelated": ("Unrelated weights", "The weights do not derive from the release."),
    "unknown": ("Unknown edit", "What was done could not be named."),
}

LINEAGE: dict[str, str] = {
    "proved": "The weights derive from this release: proved",
    "consistent-with": "The weights are consistent with this release as their origin",
    "unknown": "The weights could not tell",
    "unrelated": "The weights do not derive from this release",
}

PAIR_LINEAGE: dict[str, str] = {
    "proved": "The fork's weights derive from the base: proved",
    "consistent-with": "The fork's weights are consistent with the base as their origin",
    "unknown": "The weights could not tell",
    "unrelated": "The fork's weights do not derive from the base",
}
"""The same for any two checkpoints, of which none need be a release."""

SAFETY: dict[str, str] = {
    "retained": "Refusals retained",
    "degraded": "Refusals degraded",
    "removed": "Refusals removed",
    "not-measured": "Not measured",
}

SIGNATURES: dict[str, tuple[str, str]] = {
    "verified": ("Signature verified", "The release's bytes match its signature."),
    "claimed": (
        "Signed by nobody trusted, pinned on first use",
        "Its signature is of nobody whom we trust. Comparisons are with the copy that was fetched first.",
    ),
    "unsigned": (
        "Not signed, pinned on first use",
        "Comparisons are with the copy that was fetched first; nothing proves that it is its publisher's.",
    ),
    "invalid": ("Signature does not verify", "Do not rely on comparisons with these bytes."),
}

EVENTS: dict[str, str] = {
    "new-commit": "New commit",
    "renamed": "Renamed",
    "deleted": "Deleted, or made private: the Hub does not tell which",
    "reappeared": "There again",
    "re-registered": "Its name was registered again by somebody else: that is another repository",
    "gated": "Access was gated",
    "disabled": "Disabled by the Hub",
    "opened": "Opened: neither gated nor disabled any more",
}

RELEASE_EVENTS: dict[str, str] = {
    "new-commit": "New commit",
    "signer-changed": "New commit, signed by another trusted signer",
    "signature-untrusted": "New commit, signed by nobody trusted",
    "signature-mismatch": "New commit, whose files are not what its signature covers",
    "signature-removed": "New commit without the signature",
    "signature-added": "New commit with a signature, where there was none",
    "signature-changed": "New commit with another signature of nobody trusted",
    "signature-unreadable": "New commit, whose signature cannot be read",
    "branch-removed": "The watched branch is gone",
    "renamed": "Renamed",
    "re-registered": "Its name was registered again: that is another repository",
    "deleted": "Deleted, or made private: the Hub does not tell which",
    "settings-changed": "The settings trust others, or pin another commit",
}
"""What becomes of a guarded release upstream."""

DECISIONS: dict[str, str] = {
    "adopted": "the pin was moved",
    "kept": "the pin was kept",
    "lapsed": "the pin was kept; not so any more",
    "passed": "not so any more",
    "none-needed": "no decision needed",
}

DISPUTES: dict[str, str] = {
    "open": "open: it is being looked at",
    "upheld": "decided: the verdict stands",
    "corrected": "decided: a corrected verdict replaces it",
    "withdrawn": "decided: the verdict was taken back",
    "dropped": "dropped by whoever opened it",
}
"""Where a dispute about a verdict stands."""

CHANNELS: dict[str, str] = {
    "declared": "declares the release as its base",
    "tag": "carries a tag of models without refusals",
    "name": "has a name like the release's",
    "statement": "names the release in its card",
    "namespace": "is of an account that has published a fork",
    "shape": "has the release's architecture and size, and declares no other origin",
    "direct": "was named by the user",
}


def edit_title(kind: str) -> str:
    """Display name of an edit kind; an unknown one is shown as it is."""
    return EDITS[kind][0] if kind in EDITS else kind.replace("-", " ").capitalize()


EVIDENCE: dict[str, str] = {
    "n": "answers compared",
    "p-value": "significance (p)",
    "mcnemar-p": "significance (p, exact McNemar test)",
    "refusal-drop": "refusals lost",
    "fork-refusal-rate": "refusals of the fork",
    "log10-p-value": "significance of neurons (p)",
    "log10-p-angles": "significance of angles (p)",
    "log10-p-gains": "significance of norm gains (p)",
    "spike-log10-p-value": "significance (p)",
}
"""Evidence whose name says little to who does not know it."""

SHARES = frozenset({"refusal-drop", "fork-refusal-rate"})
"""Evidence that is a share of prompts: a bare 1 would read as one prompt."""


def evidence_title(name: str) -> str:
    """A piece of evidence in words."""
    return EVIDENCE.get(name, spaced(name))


def spaced(name: str) -> str:
    """A kebab or snake name as words."""
    return name.replace("-", " ").replace("_", " ")
