"""The steps of a scripted demo: each is printed with the time that it takes, and its result is checked."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StepFailedError(Exception):
    """A step did not have the expected result."""


@asynccontextmanager
async def step(text: str) -> AsyncIterator[None]:
    """Print a step, and the time that the body takes."""
    print(f"\n→ {text}", flush=True)
    started = time.perf_counter()
    yield
    print(f"  ✓ {1000 * (time.perf_counter() - started):.0f} ms", flush=True)


def show(text: str) -> None:
    """Print the result of a step."""
    print("\n".join(f"    {line}" for line in text.splitlines()), flush=True)


def check(condition: bool, error: str) -> None:  # noqa: FBT001 - an assertion
    """Raise StepFailedError with the error unless the condition is true."""
    if not condition:
        raise StepFailedError(error)
