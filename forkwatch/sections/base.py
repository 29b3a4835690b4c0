"""What all sections have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the file: values that do not change, and no others than those named."""

    model_config = ConfigDict(frozen=True, extra="forbid")
