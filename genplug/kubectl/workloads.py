"""Why a workload has no pods: the errors that the API server returned to its controller.

A quota or an invalid request refuses the creation of a pod, so that no pod exists that could be Pending. The controller
reports the error in the condition ReplicaFailure and in events with the reason FailedCreate
(k8s.io/kubernetes, pkg/controller/controller_utils.go, createPods).
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from genplug.kubectl.analysis import Analysis, Cause
from genplug.kubectl.json_values import JSON, read_map, read_maps, read_text
from genplug.kubectl.objects import Pod
from genplug.kubectl.obstacles import parse_amounts, sum_requests
from genplug.kubectl.quantity import format_quantity, parse_quantity
from genplug.observe.text import count_noun, join_names

_QUOTA = re.compile(r"exceeded quota: (\S+), requested: (\S*), used: (\S*), limited: (\S*)")
"""The error of the quota admission plugin (k8s.io/apiserver, pkg/admission/plugin/resourcequota/controller.go)."""
_MISSING_IN_QUOTA = re.compile(r"failed quota: ([^\s:]+): must specify (.+)")
_INVALID_REQUESTS = {
    "must be an integer": (
        "the number of devices is a fraction",
        "request a whole number of devices; to share a device, use `share` in the configuration of genplug",
    ),
    "must be equal to": (
        "requests and limits of the devices differ",
        "set only limits, so that the API server copies them to requests",
    ),
    "Limit must be set for non overcommitable resources": (
        "the pod has requests of devices without limits",
        "set limits of the devices; the API server copies them to requests",
    ),
}
"""Errors of the validation (k8s.io/kubernetes, pkg/apis/core/validation), with their meaning and what to do."""


@dataclass(frozen=True, slots=True)
class Workload:
    """An object whose controller creates pods."""

    kind: str
    namespace: str
    name: str
    uid: str
    desired: int
    """The number of pods that the controller maintains."""
    failure: str = ""
    """The message of the condition ReplicaFailure, or an empty text."""


def decode_workload(item: JSON) -> Workload:
    """Return a Deployment, ReplicaSet, StatefulSet, Job or DaemonSet."""
    metadata, spec, status = (read_map(item, key) for key in ("metadata", "spec", "status"))
    counts = (spec.get("replicas"), spec.get("parallelism"), status.get("desiredNumberScheduled"))
    failures = (
        read_text(condition, "message")
        for condition in read_maps(status, "conditions")
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
    )
    return Workload(
        kind=read_text(item, "kind"),
        namespace=read_text(metadata, "namespace"),
        name=read_text(metadata, "name"),
        uid=read_text(metadata, "uid"),
        desired=next((count for count in counts if isinstance(count, int)), 1),
        failure=next(failures, ""),
    )


def find_owned(uid: str, items: Iterable[JSON]) -> list[JSON]:
    """Return the objects that an object owns."""
    return [
        item
        for item in items
        if any(owner.get("uid") == uid for owner in read_maps(read_map(item, "metadata"), "ownerReferences"))
    ]


def list_create_errors(events: Iterable[JSON], uids: Iterable[str]) -> list[str]:
    """Return the messages of the events FailedCreate of objects, newest first, each text once."""
    wanted = set(uids)
    found = [
        (_event_time(event), read_text(event, "message"))
        for event in events
        if event.get("reason") == "FailedCreate" and read_text(read_map(event, "involvedObject"), "uid") in wanted
    ]
    return list(dict.fromkeys(message for _, message in sorted(found, reverse=True)))


def analyze_creation(workload: Workload, errors: Sequence[str], pods: Sequence[Pod]) -> Analysis:
    """Return why the API server refuses pods of a workload. ``pods`` are the pods of its namespace."""
    message = errors[0].removeprefix("Error creating: ")

    def build(cause: Cause, summary: str, actions: Iterable[str], details: Iterable[str] = ()) -> Analysis:
        return Analysis(
            workload.kind, workload.namespace, workload.name, cause, summary,
            details=tuple(details), actions=tuple(actions),
        )  # fmt: skip

    if match := _QUOTA.search(message):
        return build(Cause.QUOTA, *_explain_quota(match, workload, pods))
    if match := _MISSING_IN_QUOTA.search(message):
        summary = f"The API server creates no pod: the ResourceQuota {match[1]} requires that pods specify {match[2]}."
        return build(Cause.QUOTA, summary, (f"add {match[2]} to the containers of the pod template",))
    for text, (meaning, action) in _INVALID_REQUESTS.items():
        if text in message:
            summary = f"The API server creates no pod, because the request is invalid: {meaning}."
            return build(Cause.INVALID_REQUEST, summary, (action,), (message,))
    summary = f"The API server creates no pod of {workload.kind} {workload.name}: {message}"
    return build(Cause.NOT_CREATED, summary, ("correct what the message names, in the pod template or the cluster",))


def _explain_quota(
    match: re.Match[str], workload: Workload, pods: Sequence[Pod]
) -> tuple[str, Iterator[str], list[str]]:
    quota, *parts = match.groups()
    requested, used, limited = map(_parse_amounts, parts)
    exceeded = [name for name in requested if name in limited]
    name = exceeded[0] if exceeded else "a resource"
    resource = name.removeprefix("requests.")
    summary = (
        f"The API server creates no pod, because the ResourceQuota {quota} is used up: {resource} has a limit of "
        f"{limited.get(name, '?')} in the namespace {workload.namespace}, {used.get(name, '?')} "
        f"{'is' if used.get(name) == '1' else 'are'} in use, and the pod requests {requested.get(name, '?')}."
    )
    # Pods that wait count too; those that have ended do not (k8s.io/kubernetes, pkg/quota/v1/evaluator/core/pods.go).
    holders = [
        (pod.name, amount, pod.phase or "Pending")
        for pod in pods
        if pod.phase not in {"Succeeded", "Failed"} and (amount := sum_requests(pod).get(resource))
    ]
    details = [
        f"{pod} uses {format_quantity(resource, amount)} of the quota and is {phase}" for pod, amount, phase in holders
    ]
    needed = parse_amounts(used).get(name, parse_quantity(0)) + parse_amounts(requested).get(name, parse_quantity(0))

    def list_actions() -> Iterator[str]:
        raised = format_quantity(resource, needed)
        # Everyone who creates events can write the message, and the administrator copies the command into a shell.
        patch = shlex.quote(json.dumps({"spec": {"hard": {name: raised}}}, separators=(",", ":")))
        words = f"{shlex.quote(quota)} --namespace {workload.namespace}"
        yield f"raise the quota: kubectl patch resourcequota {words} --patch {patch}"
        if holders:
            yield f"end a pod that uses the quota: {join_names([pod for pod, _, _ in holders])}"
        yield "run the workload in another namespace"

    return summary, list_actions(), details


def summarize_waiting(analysis: Analysis, workload: Workload, waiting: int, errors: Sequence[str]) -> Analysis:
    """Return the analysis of a pod as that of its workload, of which ``waiting`` pods are Pending."""
    pods = count_noun(waiting, "pod")
    verb = "waits" if waiting == 1 else "wait"
    details = [f"{pods} of {workload.kind} {workload.name} {verb}; this is about {analysis.name}"]
    details += [f"the API server refuses further pods: {error}" for error in errors[:1]]
    return Analysis(
        workload.kind,
        workload.namespace,
        workload.name,
        analysis.cause,
        analysis.summary,
        details=(*details, *analysis.details),
        resources=analysis.resources,
        actions=analysis.actions,
        scheduler_message=analysis.scheduler_message,
        not_evaluated=analysis.not_evaluated,
        requests=analysis.requests,
    )


def describe_complete(workload: Workload, running: int) -> Analysis:
    """Return the analysis of a workload without pods that wait."""
    summary = (
        f"No pod waits: {count_noun(running, 'pod')} of {workload.kind} {workload.name} "
        f"{'runs or has' if running == 1 else 'run or have'} ended, and {workload.desired} are desired."
    )
    return Analysis(workload.kind, workload.namespace, workload.name, Cause.NOT_WAITING, summary)


def _parse_amounts(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _event_time(event: JSON) -> str:
    series = read_map(event, "series").get("lastObservedTime")
    times = (series, event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp"))
    return next((time for time in times if isinstance(time, str)), "")
