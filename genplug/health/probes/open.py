"""``open``: every node of a device can be opened.

A request is ``("open", mode, path, numbers, ...)``, the numbers as ``char 195:0``.
Its answer has for each path an errno; it is 0 if the node was opened, and -1 if another device is at the path.
"""

import errno
import os
from typing import TypeAlias

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Denial, Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.policy import Policy
from genplug.spec.privileges import NeedKind, ProbeNeed
from genplug.spec.probes import Check

Answer: TypeAlias = tuple[tuple[str, int], ...]
_OTHER_DEVICE = -1
_MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
_NOT_PERMITTED = frozenset({errno.EPERM, errno.EACCES})


class OpenCheck(Check, frozen=True):
    """``mode`` is ``r``, ``w`` or ``rw``."""

    mode: str = "rw"


def decode(options: OptionsDecoder) -> OpenCheck:
    """Return the check that the options describe."""
    mode = options.text("mode")
    return OpenCheck(mode) if mode in _MODES else OpenCheck()


def make_request(check: OpenCheck, device: Device) -> ProbeRequest:
    """Return the request for a device."""
    nodes = (part for node in device.nodes for part in (node.path, node.info.describe_numbers()))
    return ("open", check.mode, *nodes)


def run(request: ProbeRequest, reader: CachedFileReader, _timeout: float) -> Answer:
    """Open the nodes, one after the other; runs in a worker, and may hang."""
    mode, nodes = request[1], request[2:]
    pairs = zip(nodes[::2], nodes[1::2], strict=True)
    return tuple((path, _open(reader, path, numbers, mode)) for path, numbers in pairs)


def evaluate(_check: OpenCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return the first failure of any node. Pure."""
    return worst_result(_evaluate_node(path, number) for path, number in answer), None


def _evaluate_node(path: str, number: int) -> Result:
    if number in _NOT_PERMITTED:
        text = f"genplug is not permitted to open {path} ({os.strerror(number)}): the pod has to be privileged"
        return Result(Outcome.ERROR, text)
    if number == _OTHER_DEVICE:
        # The presence check detects and evaluates this.
        return Result(Outcome.ERROR, f"another device is at {path} now")
    # EBUSY: the container that holds the device has opened it exclusively.
    if number not in {0, errno.EBUSY}:
        return Result(Outcome.FAILED, f"{path} cannot be opened: {os.strerror(number)}")
    return Result(Outcome.PASSED)


def _open(reader: CachedFileReader, path: str, numbers: str, mode: str) -> int:
    info = reader.host.stat(path)
    if info is None:
        return errno.ENOENT
    if info.describe_numbers() != numbers:
        return _OTHER_DEVICE
    try:
        # Do not wait for a carrier, and do not become the controlling process of a terminal.
        flags = _MODES[mode] | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        os.close(os.open(reader.host.process_path(path), flags))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _denial(_check: OpenCheck, policy: Policy) -> Denial | None:
    reason = policy.open_error()
    return Denial(f"opening device nodes is {reason}") if reason else None


def _needs(_check: OpenCheck) -> tuple[ProbeNeed, ...]:
    return (ProbeNeed(NeedKind.DEVICE_ACCESS, "opens device nodes, which only a privileged container can do"),)


KIND = ProbeKind(
    "open", OpenCheck, decode, Polling(make_request, run, evaluate, Effect.OPEN), denial=_denial, needs=_needs
)
