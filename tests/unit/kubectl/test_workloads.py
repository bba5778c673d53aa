"""Why a workload has no pods; the messages are those of a real API server of Kubernetes 1.37."""

import json
import shlex

import pytest

from genplug.kubectl.analysis import Cause
from genplug.kubectl.objects import decode_pod
from genplug.kubectl.workloads import Workload, analyze_creation, decode_workload, list_create_errors
from tests.support.kubectl import Object, make_pod

THING = "test.example/thing"
WORKLOAD = Workload("Deployment", "ml", "web", "uid-web", 3)
QUOTA_ERROR = (
    'Error creating: pods "web-7c5b-x2x9k" is forbidden: exceeded quota: devices, requested: '
    "requests.test.example/thing=1, used: requests.test.example/thing=2, limited: requests.test.example/thing=2"
)


def build_pod(name: str, phase: str, count: int) -> Object:
    container = {"name": "main", "resources": {"requests": {THING: str(count)}}}
    return make_pod(name, namespace="ml", containers=[container], status={"phase": phase})


def test_exceeded_quota_is_explained_with_the_pods_that_use_it() -> None:
    pods = [build_pod("a", "Running", 1), build_pod("b", "Pending", 1), build_pod("c", "Failed", 1)]
    analysis = analyze_creation(WORKLOAD, [QUOTA_ERROR], [decode_pod(pod) for pod in pods])
    assert analysis.cause is Cause.QUOTA
    assert analysis.summary == (
        f"The API server creates no pod, because the ResourceQuota devices is used up: {THING} has a limit of 2 in the "
        "namespace ml, 2 are in use, and the pod requests 1."
    )
    assert analysis.details == (
        "a uses 1 of the quota and is Running",
        "b uses 1 of the quota and is Pending",
    )
    assert analysis.actions == (
        (
            "raise the quota: kubectl patch resourcequota devices --namespace ml --patch "
            '\'{"spec":{"hard":{"requests.test.example/thing":"3"}}}\''
        ),
        "end a pod that uses the quota: a, b",
        "run the workload in another namespace",
    )


def test_command_to_copy_contains_texts_of_events_as_single_words() -> None:
    name = "a';touch${IFS}x;'"
    message = f"exceeded quota: $(touch), requested: {name}=1, used: {name}=1, limited: {name}=1"
    action = analyze_creation(WORKLOAD, [message], []).actions[0]
    command = shlex.split(action.removeprefix("raise the quota: "))
    assert command[:-1] == ["kubectl", "patch", "resourcequota", "$(touch)", "--namespace", "ml", "--patch"]
    assert json.loads(command[-1]) == {"spec": {"hard": {name: "2"}}}
    assert "'$(touch)'" in action


@pytest.mark.parametrize(
    ("message", "cause", "text"),
    [
        (
            'pods "a" is forbidden: failed quota: compute: must specify limits.cpu for: main',
            Cause.QUOTA,
            "the ResourceQuota compute requires that pods specify limits.cpu for: main",
        ),
        (
            (
                'Pod "a" is invalid: spec.containers[0].resources.limits[test.example/thing]: Invalid value: "500m": '
                "must be an integer"
            ),
            Cause.INVALID_REQUEST,
            "the number of devices is a fraction",
        ),
        (
            (
                'Pod "a" is invalid: spec.containers[0].resources.requests: Invalid value: "1": must be equal to '
                "test.example/thing limit of 2"
            ),
            Cause.INVALID_REQUEST,
            "requests and limits of the devices differ",
        ),
        (
            (
                'Pod "a" is invalid: spec.containers[0].resources.limits: Required value: Limit must be set for non '
                "overcommitable resources"
            ),
            Cause.INVALID_REQUEST,
            "the pod has requests of devices without limits",
        ),
        (
            "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: no",
            Cause.NOT_CREATED,
            "denied request: no",
        ),
    ],
)
def test_error_of_the_api_server_is_explained(message: str, cause: Cause, text: str) -> None:
    analysis = analyze_creation(WORKLOAD, [message], [])
    assert analysis.cause is cause
    assert text in analysis.summary
    assert analysis.actions


def test_workload_is_decoded_with_its_failure_and_the_number_of_its_pods() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no"}
    metadata = {"namespace": "ml", "name": "web", "uid": "uid-web"}
    item: Object = {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": 3}}
    assert decode_workload(item) == WORKLOAD
    assert decode_workload({**item, "status": {"conditions": [condition]}}).failure == "no"
    assert decode_workload({**item, "spec": {"parallelism": 5}}).desired == 5
    assert decode_workload({**item, "spec": {}, "status": {"desiredNumberScheduled": 7}}).desired == 7


def test_events_of_the_workload_are_returned_newest_first() -> None:
    def build(uid: str, time: str, message: str, reason: str = "FailedCreate") -> Object:
        return {"reason": reason, "message": message, "lastTimestamp": time, "involvedObject": {"uid": uid}}

    events = [
        build("a", "2026-11-27T17:00:00Z", "old"),
        build("b", "2026-11-27T17:00:02Z", "new"),
        build("c", "2026-11-27T17:00:03Z", "other object"),
        build("a", "2026-11-27T17:00:04Z", "other reason", "Killing"),
    ]
    assert list_create_errors(events, ["a", "b"]) == ["new", "old"]
