"""``pci``: a function is on the bus, responds, has its initial driver, and has a link of the expected width.

A request is ``("pci", "width" or "", address, ...)``.
Its answer has for each address the content of its directory in /sys, or None if the directory does not exist
(the kernel's Documentation/ABI/testing/sysfs-bus-pci).
"""

import os
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.numbers import parse_natural
from genplug.spec.probes import Check
from genplug.spec.template import MissingAttributeError, Template

_DEVICES = "/sys/bus/pci/devices"
_HEADER_BYTES = 64
"""The standard header of a configuration space. A read of the whole space can disturb a device.

A virtual function returns ones as its vendor and device (SR-IOV specification, VF configuration space), but not in the
rest of its header.
"""
_ONES = 0xFF
_NO_HEADER = b"\x00"
"""In place of a header that does not exist; a header is longer."""
_DEAD_WIDTH = "63"
"""The link width of a device that does not respond: all bits of its status register read as ones."""
_INITIAL = "atStart"


class PciCheck(Check, frozen=True):
    """The functions at these addresses, or those of the device; the minimum width of their links in lanes.

    With ``keep_initial_width``, a link that is narrower than at the first run is a failure; a function that had no
    width at the first run, because it is not PCI Express, passes.
    """

    address: Template | None = None
    min_width: int | None = None
    keep_initial_width: bool = False

    @property
    def implied_attributes(self) -> frozenset[str]:
        """The attributes that it needs besides those in its templates."""
        return frozenset({"pci.address"})


class FunctionState(NamedTuple):
    """The state of a function: its header or an errno, its driver, its link width.

    The header of a suspended function is empty; a driver or width that does not exist is empty.
    """

    header: bytes | int
    driver: str
    width: str


Answer: TypeAlias = tuple[tuple[str, tuple[bytes | int, str, str] | None], ...]


class Baseline(Struct, frozen=True):
    """Driver and link width of a function at the first run."""

    driver: str
    width: str


Memory: TypeAlias = dict[str, Baseline]


def decode(options: OptionsDecoder) -> PciCheck:
    """Return the check that the options describe."""
    width = int(options.number("minLinkWidth", 0)) or None
    return PciCheck(options.template("address"), width, options.text("minLinkWidth") == _INITIAL)


def make_request(check: PciCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: the device is not a PCI device, or lacks an attribute that the address needs.
    """
    # A read of the width can also wake a device.
    width = "width" if check.min_width is not None or check.keep_initial_width else ""
    if check.address is not None:
        return ("pci", width, *check.address.render_each(device.attributes))
    if "pci.address" not in device.attributes:
        raise MissingAttributeError("pci.address")
    return ("pci", width, *dict.fromkeys(device.attributes["pci.address"]))


def run(request: ProbeRequest, reader: CachedFileReader, _timeout: float) -> Answer:
    """Return the state of each function; runs in a worker, and may hang."""
    reads_width = bool(request[1])
    return tuple(
        (address, _read_function(f"{_DEVICES}/{address}", reader, reads_width=reads_width)) for address in request[2:]
    )


def evaluate(check: PciCheck, answer: Answer, memory: Memory | None, _now: float) -> tuple[Result, Memory]:
    """Return the first failure of any function. Pure."""
    baselines = dict(memory or {})
    results = []
    for address, fields in answer:
        state = FunctionState(*fields) if fields is not None else None
        if state is not None:
            first = baselines.get(address, Baseline(state.driver, ""))
            # A function that was suspended or did not respond at the first run had no width then.
            width = first.width if parse_natural(first.width) is not None else ("" if _is_dead(state) else state.width)
            baselines[address] = Baseline(first.driver, width)
        results.append(_evaluate_function(check, address, state, baselines.get(address)))
    return worst_result(results), baselines


def _read_function(
    directory: str, reader: CachedFileReader, *, reads_width: bool
) -> tuple[bytes | int, str, str] | None:
    # An address that is rendered from a file could lead out of the directory.
    if "/" in directory.removeprefix(f"{_DEVICES}/") or not reader.host.exists(directory):
        return None
    # Further reads would wake a suspended device.
    is_suspended = reader.text(f"{directory}/power/runtime_status") == "suspended"
    header: bytes | int = b""
    if not is_suspended:
        try:
            header = reader.read_bytes(f"{directory}/config", _HEADER_BYTES)
        except FileNotFoundError:
            # The kernel has this file for each function. A captured tree may lack it, and then has no header to check.
            header = _NO_HEADER
        except OSError as error:
            header = error.errno or 0
    width = reader.text(f"{directory}/current_link_width") if reads_width and not is_suspended else ""
    # A worker sends plain tuples only.
    return header, reader.link_target_name(f"{directory}/driver") or "", width if isinstance(width, str) else ""


def _is_silent(state: FunctionState) -> bool:
    return isinstance(state.header, bytes) and bool(state.header) and set(state.header) == {_ONES}


def _is_dead(state: FunctionState) -> bool:
    return state.width == _DEAD_WIDTH or _is_silent(state)


def _evaluate_function(check: PciCheck, address: str, state: FunctionState | None, baseline: Baseline | None) -> Result:
    if state is None or baseline is None:
        return Result(Outcome.FAILED, f"{address} is no longer on the PCI bus")
    if _is_silent(state):
        text = f"{address} does not answer: its configuration space reads as all ones, so it has fallen off the bus"
        return Result(Outcome.FAILED, text)
    if state.driver != baseline.driver:
        found, expected = (f"driver '{name}'" if name else "no driver" for name in (state.driver, baseline.driver))
        return Result(Outcome.FAILED, f"{address} has {found}, expected {expected} as at the first run")
    if isinstance(state.header, int):
        return Result(Outcome.ERROR, f"{_DEVICES}/{address}/config cannot be read: {os.strerror(state.header)}")
    return _evaluate_width(check, address, state, baseline)


def _evaluate_width(check: PciCheck, address: str, state: FunctionState, baseline: Baseline) -> Result:
    is_suspended = state.header == b""
    if is_suspended or (check.min_width is None and not check.keep_initial_width):
        return Result(Outcome.PASSED)
    width, initial = parse_natural(state.width), parse_natural(baseline.width)
    if check.min_width is None and width is None and initial is None:
        # A function that is not PCI Express has no width (the kernel's drivers/pci/pci-sysfs.c), so none can be lost.
        return Result(Outcome.PASSED)
    if width is None:
        return Result(Outcome.ERROR, f"{_DEVICES}/{address}/current_link_width cannot be read")
    if state.width == _DEAD_WIDTH:
        return Result(Outcome.FAILED, f"{address} does not answer: its link width reads as all ones")
    expected = check.min_width or 0
    if check.keep_initial_width and initial is not None:
        expected = max(expected, initial)
    if width < expected:
        suffix = " as at the first run" if expected != check.min_width else ""
        text = f"the link of {address} is x{state.width}, expected at least x{expected}{suffix}"
        return Result(Outcome.FAILED, text)
    return Result(Outcome.PASSED)


KIND = ProbeKind("pci", PciCheck, decode, polling=Polling(make_request, run, evaluate, Effect.READ))
