"""What a check found: one line about one subject, and the remedy if something is wrong."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, FAULT = "ok", "warning", "fault"
_LONG = 300  # characters of another library's error


class Finding(NamedTuple):
    """One result of a check.

    Attributes:
        status: :data:`OK`, :data:`WARNING` (it works, but perhaps not as meant) or :data:`FAULT`.
        subject: What was looked at, such as ``'strides'``.
        text: What was found, and what was expected.
        remedy: What to do about it, in one line; empty if nothing is wrong.
        certain: Whether training cannot work: ``mmvanilla train`` refuses these faults.
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
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text[:_LONG]}" if text else name
