"""The number and duration of the runs of each benchmark."""

from msgspec import Struct


class Runs(Struct, frozen=True):
    """Numbers of runs; ``settle``, ``idle`` and ``outage`` are seconds."""

    starts: int = 12
    repeats: int = 3
    calls: int = 3000
    changes: int = 12
    restarts: int = 50
    large_starts: int = 3
    large_changes: int = 5
    losses: int = 6
    footprints: int = 2
    settle: float = 10.0
    idle: float = 20.0
    idles: int = 3
    crashes: int = 1000
    commands: int = 12
    fleets: int = 2
    large_fleets: int = 1
    counts: int = 2
    claims: int = 200
    kubelet_restarts: int = 20
    outages: int = 3
    outage: float = 60.0


QUICK = Runs(
    starts=3,
    repeats=1,
    calls=1000,
    changes=3,
    restarts=3,
    large_starts=1,
    large_changes=1,
    losses=3,
    footprints=1,
    settle=3,
    idle=5,
    idles=1,
    crashes=20,
    commands=3,
    fleets=1,
    large_fleets=0,
    counts=1,
    claims=20,
    kubelet_restarts=2,
    outages=1,
    outage=5,
)
