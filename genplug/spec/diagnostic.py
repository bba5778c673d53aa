"""Diagnostics as values: what is wrong with a configuration, or is probably not what its author intended.

``genplug.config.diagnostics`` collects and formats them.
"""

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from genplug.spec.location import SourceLocation


class Severity(StrEnum):
    """The effect of a diagnostic: an error makes a configuration invalid, a warning has no effect."""

    ERROR = "error"
    WARNING = "warning"


class ErrorCode(StrEnum):
    """The kind of an error. The codes are public and do not change.

    ``schema.py`` adds GP006 and most of GP007 to GP009, ``yaml_tree.py`` GP002 and GP003, ``decode`` most others.
    """

    UNREADABLE = "GP001"
    SYNTAX = "GP002"
    DUPLICATE_KEY = "GP003"
    NO_RESOURCES = "GP004"
    WRONG_VERSION = "GP005"
    UNKNOWN_KEY = "GP006"
    MISSING_KEY = "GP007"
    WRONG_TYPE = "GP008"
    WRONG_VALUE = "GP009"
    RESOURCE_NAME = "GP010"
    GLOB = "GP011"
    TEMPLATE = "GP012"
    UNKNOWN_ATTRIBUTE = "GP013"
    SELECTOR = "GP014"
    PATH = "GP015"
    NAME = "GP016"
    CONFLICT = "GP017"
    NOT_ALLOWED = "GP019"
    LIMIT = "GP020"
    CHART = "GP021"
    DRA = "GP022"


class WarningCode(StrEnum):
    """The kind of a warning. The codes are public and do not change; they start at GP101."""

    TIMEOUT = "GP101"
    REGEX_IN_GLOB = "GP102"
    TEMPLATE_SYNTAX = "GP103"
    INVISIBLE_CHARACTER = "GP104"
    SAME_DEVICES = "GP105"
    IGNORED_FILE = "GP106"
    IMPOSSIBLE_CONDITION = "GP107"
    NO_EFFECT = "GP108"
    UNSTABLE_ID = "GP109"
    UNSAFE_POLICY = "GP120"


DiagnosticCode: TypeAlias = ErrorCode | WarningCode


class Diagnostic(Struct, frozen=True):
    """An error or a warning about a configuration.

    ``width`` is the number of characters that the caret marks, ``key_path`` the path of keys to it.
    ``related_location`` is the location of the other half, if it has two.
    """

    code: DiagnosticCode
    location: SourceLocation
    message: str
    key_path: str = ""
    expected: str = ""
    hint: str = ""
    width: int = 1
    related_location: SourceLocation | None = None
    line: str = ""

    @property
    def severity(self) -> Severity:
        """Whether it is an error or a warning, which its code decides."""
        return Severity.WARNING if isinstance(self.code, WarningCode) else Severity.ERROR
