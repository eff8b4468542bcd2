"""What a check found: one line about one subject, and the remedy if something is wrong."""

from __future__ import annotations

from textwrap import shorten
from typing import NamedTuple

OK, WARNING, FAULT = "ok", "warning", "fault"


class Finding(NamedTuple):
    """One result of a check: what was looked at, what was found, and what to do about it.

    A :data:`WARNING` works, but perhaps not as meant. With a certain :data:`FAULT` training cannot
    work: ``mmvanilla train`` refuses it.
    """

    status: str
    subject: str
    text: str
    remedy: str = ""
    certain: bool = False

    def __str__(self) -> str:
        """Return text and remedy as one line."""
        return f"{self.text}; {self.remedy}" if self.remedy else self.text


def words(error: BaseException) -> str:
    """Return an exception of another library as one line."""
    text = shorten(str(error), 300, placeholder=" …")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
