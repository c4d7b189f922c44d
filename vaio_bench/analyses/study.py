"""What a study of a trace found: the document that its verb prints with `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Study:
    """A document with `warnings` and an `answer`; a verb's own study adds its views of it."""

    document: dict[str, Any]
    """As the verb's `--json`."""

    @property
    def warnings(self) -> list[str]:
        """What to know before the figures are used."""
        return list(self.document["warnings"])

    @property
    def answer(self) -> str:
        """What to take from it, in a sentence or two."""
        return str(self.document["answer"])

    def to_dict(self) -> dict[str, Any]:
        """The document of `--json`."""
        return self.document
