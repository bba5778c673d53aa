"""The values of a conversion: resources of genplug, and a remark for each thing that needs attention."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct, field

from genplug.config.diagnostics import Diagnostics
from genplug.spec.location import SourceLocation

Path: TypeAlias = tuple[str | int, ...]
"""The keys and indexes that lead to a part of the body of a resource."""
Body: TypeAlias = dict[str, Any]
"""The value of a resource: mappings, lists and scalars."""


class Kind(StrEnum):
    """The kind of a remark."""

    UNSUPPORTED = "unsupported"
    """The configuration does not express this part of the source."""
    UNKNOWN = "unknown"
    """The other plugin does not have this key either."""
    NOTE = "note"
    """The configuration expresses this part in another way, or does not need it."""


class Remark(Struct, frozen=True):
    """A thing about the source that its author should know.

    ``message`` is what and why, ``action`` what to do instead, ``key`` the path of keys in the source. ``resource`` is
    the resource of genplug that it concerns, or empty, and ``at`` the part of the resource above which the comment is
    written.
    """

    kind: Kind
    message: str
    action: str
    key: str
    location: SourceLocation
    resource: str = ""
    at: Path = ()

    @property
    def needs_attention(self) -> bool:
        """Whether something of the source is not expressed."""
        return self.kind is not Kind.NOTE


class Draft(Struct):
    """A resource under construction."""

    name: str
    location: SourceLocation
    body: Body = field(default_factory=lambda: {"devices": []})

    def add_source(self, source: Body) -> Path:
        """Add an entry of ``devices``, and return its path."""
        self.body["devices"].append(source)
        return ("devices", len(self.body["devices"]) - 1)

    def allocate(self, key: str) -> Any:  # noqa: ANN401 - a mapping or a list of the body
        """Return the value of ``allocate.KEY``, which is created if it is missing."""
        allocate = self.body.setdefault("allocate", {})
        return allocate.setdefault(key, [] if key in ("mounts", "cdiDevices") else {})


class Report(Struct):
    """Collects the resources, the remarks, the errors of the source, and what a policy must allow."""

    file: str
    diagnostics: Diagnostics
    plugin: str = ""
    drafts: list[Draft] = []
    remarks: list[Remark] = []
    policy: dict[str, dict[str, list[Any]]] = {}

    def add(self, draft: Draft) -> None:
        """Add a resource; a second resource of the same name is left out."""
        first = next((other for other in self.drafts if other.name == draft.name), None)
        if first is None:
            self.drafts.append(draft)
            return
        self.remarks = [remark for remark in self.remarks if remark.resource != draft.name or remark.at == ()]
        self.remark(
            Kind.UNSUPPORTED,
            draft.location,
            f"the resource {draft.name} occurs a second time (first: line {first.location.line}) and is left out",
            "merge the two entries into one, or give the second another name",
        )

    def remark(  # noqa: PLR0913 - the fields of a remark
        self,
        kind: Kind,
        location: SourceLocation,
        message: str,
        action: str = "",
        *,
        key: str = "",
        draft: Draft | None = None,
        at: Path = (),
    ) -> None:
        """Add a remark; equal remarks about equal places are added once."""
        remark = Remark(kind, message, action, key, location, draft.name if draft else "", at)
        if remark not in self.remarks and len(self.remarks) < self.diagnostics.limit * 10:
            self.remarks.append(remark)

    def note(self, location: SourceLocation, message: str, action: str = "", *, draft: Draft | None = None) -> None:
        """Add a note about the whole file, or about a resource; a note about the file is added once."""
        if draft is None and any(other.message == message for other in self.remarks):
            return
        self.remark(Kind.NOTE, location, message, action, draft=draft)

    def allow(self, group: str, key: str, *values: Any) -> None:  # noqa: ANN401 - texts and numbers of a policy
        """State what the policy must allow, for example ``allow("mounts", "allow", "/opt")``."""
        allowed = self.policy.setdefault(group, {}).setdefault(key, [])
        allowed.extend(value for value in values if value not in allowed)


class Conversion(Struct, frozen=True):
    """The result: a configuration that genplug accepts, the policy that it needs, and the remarks.

    ``plugin`` is the name of the format, for example ``sriov``. A ``policy`` of None means that the default policy
    allows the configuration.
    """

    plugin: str
    title: str
    file: str
    resources: Mapping[str, Body]
    remarks: tuple[Remark, ...]
    policy: Mapping[str, Any] | None

    @property
    def attention_count(self) -> int:
        """The number of remarks about things that are not expressed."""
        return sum(remark.needs_attention for remark in self.remarks)
