"""``unixSocket``: somebody listens on a socket of the host's.

A question is ``("unixSocket", path, ...)``; its answer has for each path an errno, 0 where somebody listens.
"""

import errno
import os
import socket
from typing import TypeAlias

from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import UnixSocketCheck
from genplug.spec.template import Values

Answer: TypeAlias = tuple[tuple[str, int], ...]
_NOBODY = {errno.ENOENT: "is not there", errno.ECONNREFUSED: "is there, and nobody listens on it"}


def make_request(check: UnixSocketCheck, values: Values) -> ProbeRequest:
    """Return the question for a device with these attributes.

    Raises:
        MissingAttributeError: the path needs one that it does not have.
    """
    return ("unixSocket", *check.path.render_each(values))


def run(question: ProbeRequest, eyes: CachedFileReader, timeout: float) -> Answer:
    """Connect to each socket; runs in a worker.

    Raises:
        TimeoutError: nobody took the connection in time.
    """
    return tuple((path, _connected(eyes, path, timeout)) for path in question[1:])


def evaluate(_check: UnixSocketCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return what came of connecting means. Pure."""
    return worst_result(_judged(path, number) for path, number in answer), None


def _judged(path: str, number: int) -> Result:
    if number in _NOBODY:
        return Result(Outcome.FAILED, f"{path} {_NOBODY[number]}")
    if number:
        return Result(Outcome.ERROR, f"{path} cannot be connected to: {os.strerror(number)}")
    return Result(Outcome.PASSED)


def _connected(eyes: CachedFileReader, path: str, timeout: float) -> int:
    real = eyes.host.real_path(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connecting:
        connecting.settimeout(timeout)
        # A socket's address has room for 107 bytes: the directory is named by its descriptor.
        try:
            directory = os.open(real.parent, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            return error.errno or errno.EIO
        try:
            connecting.connect(f"/proc/self/fd/{directory}/{real.name}")
        except TimeoutError:
            raise TimeoutError(f"{path} did not take a connection within {timeout:g} s") from None
        except OSError as error:
            return error.errno or errno.EIO
        finally:
            os.close(directory)
    return 0
