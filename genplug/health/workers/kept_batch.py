"""The agent's end of a batch of requests that a worker keeps."""

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from genplug.health.workers.process import WorkerProcess


class KeptBatch(Struct, eq=False):
    """A batch of requests that run together repeatedly, so that their worker keeps them and reports changes only.

    ``key`` identifies the batch in each worker. ``holder`` is the worker that has the requests and has reported all
    last responses, None if no worker has. ``order`` are the indices of the requests in the order of the worker.
    The requests of a batch do not change: after a change, use another batch with the same key.
    """

    key: int
    holder: "WorkerProcess | None" = None
    order: list[int] = []
