"""The number and duration of the runs of each benchmark."""

from msgspec import Struct


class Runs(Struct, frozen=True):
    """Numbers of runs; ``settle`` and ``idle`` are seconds."""

    starts: int = 15
    repeats: int = 5
    calls: int = 5000
    changes: int = 20
    restarts: int = 12
    losses: int = 12
    footprints: int = 3
    settle: float = 10.0
    idle: float = 30.0
    crashes: int = 50
    commands: int = 15
    fleets: int = 3
    large_fleets: int = 1
    counts: int = 2


QUICK = Runs(
    starts=3,
    repeats=1,
    calls=1000,
    changes=3,
    restarts=3,
    losses=3,
    footprints=1,
    settle=3,
    idle=10,
    commands=3,
    fleets=1,
    large_fleets=0,
    counts=1,
)
