"""What a page is made of: answers, sections, tables and charts, before any HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vaio_bench.reporting.figures import Figure

# Colours of badges: a verdict that is bad news, good news, neither, or a problem with the run.
Tone = Literal["bad", "good", "neutral", "problem"]


@dataclass(frozen=True)
class Cell:
    """A table's cell; `note` is small print below the text, `tone` makes it a badge."""

    text: str
    note: str = ""
    tone: Tone | None = None
    badge: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column is a heading of its row."""

    columns: list[str]
    rows: list[list[Cell | str]]
    caption: str = ""
    collapsed: str = ""


@dataclass(frozen=True)
class Snippet:
    """A piece of code to copy."""

    language: str
    code: str


@dataclass
class Section:
    """A part of the page; one that has nothing to show says why in `absent`."""

    id: str
    title: str
    lead: str = ""
    absent: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    snippets: list[Snippet] = field(default_factory=list)


@dataclass(frozen=True)
class Line:
    """One sentence of an answer, with a badge in front."""

    badge: str
    tone: Tone
    text: str


@dataclass
class Answer:
    """The answer to one of the questions a run is made for."""

    question: str
    lines: list[Line] = field(default_factory=list)
    absent: str = ""


@dataclass
class Chapter:
    """All of one run."""

    title: str
    facts: list[tuple[str, str]]
    problems: list[str]
    answers: list[Answer]
    sections: list[Section]
