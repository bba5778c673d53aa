"""Force deletion: the API server frees a device while the container of the deleted pod still runs."""

import time

from tests.cluster.dra_trial.figures import Figure, exactly, spread
from tests.cluster.dra_trial.holders import build_holder
from tests.cluster.dra_trial.trial import COUNTS, Trial
from tests.cluster.dra_trial.watch import is_ready

_REASON = "FailedPrepareDynamicResources"
_GRACE_SECONDS = 4
"""The container of a deleted pod runs this long, because it ignores SIGTERM."""


def delete_by_force(trial: Trial, pods: int = 50) -> list[Figure]:
    """Delete pods by force, in rounds of five that hold all devices, while other pods wait for the devices."""
    size = COUNTS["disk"]
    seconds = list[float]()

    def name_round(number: int) -> list[str]:
        return [f"disk-{number}-{position}" for position in range(size)]

    def create(number: int) -> None:
        built = [
            build_holder(name, "disk", "disk", ignores_term=True, grace_seconds=_GRACE_SECONDS)
            for name in name_round(number)
        ]
        trial.cluster.control.apply(*built)

    with trial.watch_pods() as watch, trial.check_holders() as figures:
        create(0)
        for name in name_round(0):
            watch.find(name, is_ready)
        rounds = -(-pods // size)
        for number in range(rounds):
            create(number + 1)
            deleted = time.monotonic()
            trial.cluster.delete_pods(*name_round(number))
            seconds += [watch.find(name, is_ready) - deleted for name in name_round(number + 1)]
            trial.log(f"force deletion {number + 1}: next pods ready after up to {max(seconds[-size:]):.1f} s")
        trial.delete_pods(watch, *name_round(rounds))
    events = trial.cluster.get("events", f"--field-selector=reason={_REASON}")["items"]
    found = [(event["involvedObject"]["name"], event["message"]) for event in events]
    refused = [text for name, text in found if name.startswith("disk-")]
    # The claim of a pod of a template begins with the name of the pod.
    named = [text for text in refused if "is still prepared for the ResourceClaim default/disk-" in text]
    for text in set(refused) - set(named):
        trial.log(f"refusal without a holder: {text}")
    return [
        Figure("Pods deleted by force", rounds * size),
        *figures,
        Figure("Refusals to prepare a claim whose device is held", len(refused), minimum=1),
        exactly("Refusals without the name of the holder", len(refused) - len(named), 0),
        *spread("Force deletion to the next ready pod", seconds, 15),
    ]
