"""The hostile corpus: each case is named by its defect, and built only when it is run."""

from __future__ import annotations

from collections.abc import Callable

from tests.hostile import cases_files, cases_weights
from tests.hostile.examine import Case

CASES: dict[str, Callable[[], Case]] = {
    f"{group}: {name}": make
    for group, cases in (
        ("safetensors", cases_weights.SAFETENSORS),
        ("gguf", cases_weights.GGUF),
        ("checkpoint", cases_weights.CHECKPOINTS),
        ("pickle", cases_files.PICKLES),
        ("disguise", cases_files.DISGUISES),
        ("archive", cases_files.ARCHIVES),
        ("config", cases_files.CONFIGS),
        ("name", cases_files.NAMES),
        ("template", cases_files.TEMPLATES),
        ("repository", cases_files.REPOSITORIES),
    )
    for name, make in cases.items()
}
