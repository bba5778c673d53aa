"""Restarts of the kubelet while pods have claims."""

import signal
import time

from tests.cluster.dra_trial.figures import Figure, spread
from tests.cluster.dra_trial.holders import build_holder
from tests.cluster.dra_trial.trial import Trial, is_complete
from tests.cluster.dra_trial.watch import Watch

_PAUSE_SECONDS = 6.0
"""A pause between restarts: the agent writes a slice that it has written ten times in a minute only every 10 s."""
PODS = ("kept-0", "kept-1", "kept-2")


def restart_kubelet(trial: Trial, repeats: int = 20, pause: float = _PAUSE_SECONDS) -> list[Figure]:
    """Kill and start the kubelet, which deletes all slices of the node, while three pods have claims."""
    back, gaps, ready, memory = list[float](), list[float](), list[float](), list[int]()
    with trial.watch_slices() as slices, trial.watch_pods() as pods:
        slices.wait(is_complete)
        trial.create_holders(pods, *(build_holder(name, "thing", "thing") for name in PODS))
        with trial.check_holders(*PODS) as figures:
            for number in range(repeats):
                time.sleep(pause if number else 0)
                started, deleted, complete = _restart(trial, slices)
                back.append(complete - started)
                gaps.append(complete - deleted)
                name = f"next-{number}"
                ready += trial.create_pods(pods, build_holder(name, "thing", "thing"))
                trial.delete_pods(pods, name)
                trial.wait_unprepared(len(PODS))
                memory.append(trial.read_memory())
                trial.log(
                    f"kubelet restart {number + 1}: {back[-1]:.2f} s, gap {gaps[-1]:.2f} s, next pod {ready[-1]:.2f} s"
                )
        trial.delete_pods(pods, *PODS)
    return [
        Figure("Restarts of the kubelet", repeats),
        *figures,
        *spread("Started kubelet to all slices", back, 2),
        *spread("First deleted slice to all slices", gaps, 2),
        *spread("Next pod to ready", ready, 3),
        # The first restart loads modules and fills pools of memory.
        Figure("Growth of the agent after the first restart", max(0, memory[-1] - memory[0]) / 1024, "MiB", 2),
    ]


def _restart(trial: Trial, slices: Watch) -> tuple[float, float, float]:
    """Kill and start the kubelet; return when it was started, when a slice was deleted, and when all were back."""
    count, seen = len(slices.objects), len(slices.changes)
    assert trial.cluster.node.kubelet
    trial.cluster.node.kubelet.stop(signal.SIGKILL)
    started = time.monotonic()
    trial.cluster.node.start_kubelet()

    def list_deletions() -> list[int]:
        return [number for number in range(seen, len(slices.changes)) if slices.changes[number].kind == "DELETED"]

    slices.wait(lambda _: len(list_deletions()) >= count)
    # The kubelet registers the driver before or after it deletes the slices.
    complete = slices.wait(is_complete, since=list_deletions()[-1] + 1)
    return started, slices.changes[list_deletions()[0]].at, complete
