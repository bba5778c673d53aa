"""Locations in source files, and the base class of errors in texts with their own syntax."""

from msgspec import Struct


class SourceLocation(Struct, frozen=True):
    """A location ``file:line:column``; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class TextSyntaxError(ValueError):
    """A text that violates its syntax.

    ``offset`` is the position of the error (in characters, from 0), ``hint`` the text to write instead.
    """

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.hint = hint
