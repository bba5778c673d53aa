"""One consistent state of a resource, as its endpoint holds it: what it lists, gives and prefers."""

from collections.abc import Sequence

from attrs import frozen

from genplug.allocation.answer import answered
from genplug.allocation.edits import ContainerEdits
from genplug.allocation.offer import Listed, Options, ResourceOffer
from genplug.allocation.preferred import preferred
from genplug.allocation.prestart import ProgramRun, program_runs
from genplug.hardware.host import Host


@frozen
class Answers:
    """An offer and the host on which it holds; whoever took one sees one configuration throughout."""

    offer: ResourceOffer
    host: Host

    @property
    def listed(self) -> tuple[Listed, ...]:
        """The list for the kubelet; equal when nothing changed."""
        return self.offer.listed

    @property
    def options(self) -> Options:
        """What the kubelet is told of the endpoint; it reads it once, when it connects."""
        return self.offer.options

    def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        """Return what a container with these devices gets.

        Raises:
            Refusal: it cannot be given; the text names device and reason.
        """
        return answered(self.offer, ids, self.host)

    def starts(self, ids: Sequence[str]) -> tuple[ProgramRun, ...]:
        """Return what is to run before a container with these devices starts.

        Raises:
            Refusal: it cannot be said.
        """
        return program_runs(self.offer, ids)

    def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> tuple[str, ...]:
        """Return which of the available devices to take; never raises."""
        offer = self.offer
        return preferred(
            available,
            must_include,
            size,
            offer.grants,
            groups=offer.groups,
            policy=offer.resource.preference.policy,
            distinct=offer.resource.distinct,
        )
