"""The time that the kubelet and genplug need to prepare a claim."""

import re
from collections.abc import Mapping

from tests.cluster.claims import DRIVER, build_claim_container, build_claim_pod
from tests.cluster.dra_trial.figures import Figure
from tests.cluster.dra_trial.holders import END_ON_TERM
from tests.cluster.dra_trial.trial import Trial

_KUBELET = "dra_grpc_operations_duration_seconds"
"""The histogram of the kubelet for the calls of drivers."""
_BATCH = 1


def measure_prepare(trial: Trial, pods: int = 200) -> list[Figure]:
    """Measure the preparation of a device of 1 000 for a number of pods, one after the other."""
    container = build_claim_container(command=END_ON_TERM)
    before, logged = _read_kubelet(trial), len(trial.read_log())
    with trial.watch_pods() as watch:
        ready = trial.churn(watch, lambda number: build_claim_pod(f"token-{number}", "token", container), pods, _BATCH)
    trial.wait_unprepared()
    after = _read_kubelet(trial)
    seconds = sorted(event["seconds"] for event in trial.read_log()[logged:] if event["event"] == "claim_prepared")
    calls = after["count"] - before.get("count", 0)
    mean = (after["sum"] - before.get("sum", 0)) / calls
    ordered = sorted(ready)
    return [
        Figure("Prepare calls of the kubelet", calls, minimum=pods),
        Figure("Prepare in the kubelet, mean", 1000 * mean, "ms", 15),
        Figure("Prepare in genplug, median", 1000 * seconds[len(seconds) // 2], "ms"),
        Figure("Prepare in genplug, 99th percentile", 1000 * seconds[int(0.99 * (len(seconds) - 1))], "ms", 60),
        Figure("Created pod to ready pod, median", ordered[len(ordered) // 2], "s"),
    ]


def _read_kubelet(trial: Trial) -> Mapping[str, float]:
    """Return the sum and the count of the prepare calls of the driver."""
    values: dict[str, float] = {}
    for part, labels, value in re.findall(
        rf"^{_KUBELET}_(sum|count)\{{(.*)\}} (\S+)$", trial.read_kubelet(), re.MULTILINE
    ):
        if f'driver_name="{DRIVER}"' in labels and '/NodePrepareResources"' in labels:
            values[part] = values.get(part, 0) + float(value)
    return values
