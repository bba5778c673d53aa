"""Positions in source files, which every error message about a configuration carries."""

from attrs import frozen


@frozen
class SourceLocation:
    """A position ``file:line:column``; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
