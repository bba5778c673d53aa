"""``open``: the nodes of a device can be opened.

A question is ``("open", mode, path, numbers, ...)``, the numbers as ``char 195:0``; its answer has for each path an
errno, 0 where it was opened, or -1 where another device stands there.
"""

import errno
import os
from typing import TypeAlias

from genplug.hardware.inventory import DeviceNode
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import OpenCheck

Answer: TypeAlias = tuple[tuple[str, int], ...]
_OTHER = -1
_MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
_NOT_PERMITTED = frozenset({errno.EPERM, errno.EACCES})


def make_request(check: OpenCheck, nodes: tuple[DeviceNode, ...]) -> ProbeRequest:
    """Return the question for a device with these nodes."""
    told = (part for node in nodes for part in (node.path, _numbers(node.info.numbers)))
    return ("open", check.mode, *told)


def run(question: ProbeRequest, eyes: CachedFileReader, _timeout: float) -> Answer:
    """Open the nodes, one after the other; runs in a worker, and may never return."""
    mode, told = question[1], question[2:]
    nodes = zip(told[::2], told[1::2], strict=True)
    return tuple((path, _opened(eyes, path, numbers, mode)) for path, numbers in nodes)


def evaluate(_check: OpenCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return what came of opening means. Pure."""
    return worst_result(_judged(path, number) for path, number in answer), None


def _judged(path: str, number: int) -> Result:
    if number in _NOT_PERMITTED:
        text = f"{path} may not be opened by genplug ({os.strerror(number)}): the pod has to be privileged"
        return Result(Outcome.ERROR, f"probe not permitted: {text}")
    if number == _OTHER:
        # Presence sees that by itself, and says what it means.
        return Result(Outcome.ERROR, f"{path} is another device now")
    # Whoever has it for himself alone is a container that it was given to.
    if number not in {0, errno.EBUSY}:
        return Result(Outcome.FAILED, f"{path} cannot be opened: {os.strerror(number)}")
    return Result(Outcome.PASSED)


def _numbers(numbers: tuple[object, int, int]) -> str:
    kind, major, minor = numbers
    return f"{kind} {major}:{minor}"


def _opened(eyes: CachedFileReader, path: str, numbers: str, mode: str) -> int:
    look = eyes.host.stat(path)
    if look is None:
        return errno.ENOENT
    if _numbers(look.numbers) != numbers:
        return _OTHER
    try:
        # Not to wait for a carrier, and not to become anybody's terminal.
        os.close(os.open(eyes.host.real_path(path), _MODES[mode] | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0
