"""``pci``: a function is on the bus, answers, has the driver that it had, and a link as wide as it should be.

A question is ``("pci", "width" or "", address, ...)``; its answer has for each address what is in its directory, or
None where there is none. What is there: the kernel's Documentation/ABI/testing/sysfs-bus-pci.
"""

import os
from typing import NamedTuple, TypeAlias

from attrs import frozen

from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import PciCheck
from genplug.spec.template import MissingAttributeError, Values

DEVICES = "/sys/bus/pci/devices"
FILES = ("config", "power/runtime_status", "current_link_width")
"""What is read of a function."""
HEADER = 64
"""Bytes that are read of a configuration space: its standard header. A virtual function has ones for its vendor and
device (SR-IOV specification, VF configuration space), but not for all of it.
"""
_ONES = 0xFF
_DEAD_WIDTH = "63"
"""What a link's status register says when nobody answers: all its bits are ones."""


class FunctionState(NamedTuple):
    """What there is of a function: its first bytes, empty where it sleeps or an errno; its driver's name; its width."""

    config: bytes | int
    driver: str
    width: str


Answer: TypeAlias = tuple[tuple[str, tuple[bytes | int, str, str] | None], ...]


@frozen
class Baseline:
    """What a function was like at the first look."""

    driver: str
    width: str


Memory: TypeAlias = dict[str, Baseline]


def make_request(check: PciCheck, values: Values) -> ProbeRequest:
    """Return the question for a device with these attributes.

    Raises:
        MissingAttributeError: it is no PCI device, or the address needs an attribute that it does not have.
    """
    # To read the width can wake a device, too.
    width = "width" if check.min_width is not None or check.keep_initial_width else ""
    if check.address is not None:
        return ("pci", width, *check.address.render_each(values))
    if "pci.address" not in values:
        raise MissingAttributeError("pci.address")
    return ("pci", width, *values["pci.address"])


def run(question: ProbeRequest, eyes: CachedFileReader, _timeout: float) -> Answer:
    """Look at the functions; runs in a worker, and may never return."""
    reads_width = bool(question[1])
    return tuple((address, _seen(f"{DEVICES}/{address}", eyes, reads_width=reads_width)) for address in question[2:])


def evaluate(check: PciCheck, answer: Answer, memory: Memory | None, _now: float) -> tuple[Result, Memory]:
    """Return what it means what was seen of the functions: the first fault of any. Pure."""
    firsts = dict(memory or {})
    results = []
    for address, fields in answer:
        seen = FunctionState(*fields) if fields is not None else None
        if seen is not None:
            first = firsts.get(address, Baseline(seen.driver, ""))
            # One that slept or did not answer at the first look had no width then.
            firsts[address] = Baseline(first.driver, first.width or ("" if _is_dead(seen) else seen.width))
        results.append(_judged(check, address, seen, firsts.get(address)))
    return worst_result(results), firsts


def _is_dead(seen: FunctionState) -> bool:
    return seen.width == _DEAD_WIDTH or _is_silent(seen)


def _is_silent(seen: FunctionState) -> bool:
    return isinstance(seen.config, bytes) and bool(seen.config) and set(seen.config) == {_ONES}


def _seen(directory: str, eyes: CachedFileReader, *, reads_width: bool) -> tuple[bytes | int, str, str] | None:
    if not eyes.host.exists(directory):
        return None
    # To read more wakes a device that sleeps, or finds nobody.
    sleeps = eyes.text(f"{directory}/power/runtime_status") == "suspended"
    config: bytes | int = b""
    if not sleeps:
        try:
            config = eyes.read_bytes(f"{directory}/config", HEADER)
        except OSError as error:
            config = error.errno or 0
    width = eyes.text(f"{directory}/current_link_width") if reads_width and not sleeps else ""
    # Plain, as everything that comes from a worker.
    return config, eyes.link_target_name(f"{directory}/driver") or "", width if isinstance(width, str) else ""


def _judged(check: PciCheck, address: str, seen: FunctionState | None, first: Baseline | None) -> Result:
    if seen is None or first is None:
        return Result(Outcome.FAILED, f"{address} is not on the PCI bus any more")
    if _is_silent(seen):
        text = f"{address} does not answer: its configuration space reads as ones only, it has fallen off the bus"
        return Result(Outcome.FAILED, text)
    if seen.driver != first.driver:
        is_, was = (f"driver '{one}'" if one else "no driver" for one in (seen.driver, first.driver))
        return Result(Outcome.FAILED, f"{address} has {is_}, wanted {was} as at the first look")
    if isinstance(seen.config, int):
        return Result(Outcome.ERROR, f"{DEVICES}/{address}/config cannot be read: {os.strerror(seen.config)}")
    return _width(check, address, seen, first)


def _width(check: PciCheck, address: str, seen: FunctionState, first: Baseline) -> Result:
    sleeps = seen.config == b""
    if sleeps or (check.min_width is None and not check.keep_initial_width):
        return Result(Outcome.PASSED)
    if not seen.width.isdecimal():
        return Result(Outcome.ERROR, f"{DEVICES}/{address}/current_link_width cannot be read")
    if seen.width == _DEAD_WIDTH:
        return Result(Outcome.FAILED, f"{address} does not answer: its link reads as ones only")
    wanted = check.min_width or 0
    if check.keep_initial_width and first.width.isdecimal():
        wanted = max(wanted, int(first.width))
    if int(seen.width) < wanted:
        as_at = " as at the first look" if wanted != check.min_width else ""
        return Result(Outcome.FAILED, f"the link of {address} is x{seen.width}, wanted at least x{wanted}{as_at}")
    return Result(Outcome.PASSED)
