"""Which devices to take when the kubelet lets us choose: the first in natural order. Never an error (contract 5.2)."""

from collections.abc import Iterable, Sequence

from genplug.config.natural import natural_key


def preferred(
    available: Sequence[str], must_include: Sequence[str], size: int, order: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return ``size`` of the available IDs, those of ``must_include`` among them, in natural order.

    ``order`` holds the known IDs in natural order; unknown ones come after them. Where the request contradicts itself
    the answer is the nearest that does not: at most ``size``, only what is available.
    """
    free = set(available)
    ranked = [one for one in order if one in free]
    if len(ranked) < len(free):
        ranked += sorted(free.difference(ranked), key=natural_key)
    wanted = set(must_include)
    taken = set([one for one in ranked if one in wanted][: max(size, 0)])
    missing = max(size, 0) - len(taken)
    taken.update([one for one in ranked if one not in wanted][:missing])
    return tuple(one for one in ranked if one in taken)
