"""Runs steps of a gRPC server to their end, even if the caller is canceled."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


async def run_uncancelled(step: Coroutine[Any, Any, object]) -> None:
    """Run a step to its end, even if the caller is canceled, also several times.

    C-core dereferences a null pointer, which ends the process, if a server is stopped while it starts.
    """
    task = asyncio.ensure_future(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
