"""Where something was written: the position that every message about a configuration carries."""

from attrs import frozen


@frozen
class SourceLocation:
    """``file:line:column``, lines and columns counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
