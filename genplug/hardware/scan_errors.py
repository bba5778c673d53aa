"""The errors of file operations and searches that a scan cannot finish."""


class HangError(Exception):
    """A file operation does not return, or a function has not finished in its time.

    The text is a clause that stays the same while the operation hangs. ``since`` is when the operation began (monotonic
    seconds), None where it is not known.
    """

    def __init__(self, reason: str, since: float | None = None) -> None:
        super().__init__(reason)
        self.since = since


class SearchLimitError(HangError):
    """A search for the paths that a glob matches exceeds a limit; the text is a clause with the limit."""
