"""Requests the status of an agent: ``kubectl exec POD -- genplug status -o json``."""

from genplug.kubectl.client import Cause, Kubectl, KubectlError
from genplug.kubectl.json_values import JSON
from genplug.kubectl.objects import Pod
from genplug.spec.json_text import parse_json

_NOT_READY = 4
"""The exit code of ``genplug status`` with a document of an agent that is not ready."""
_EXIT_TEXT = "command terminated with exit code"
"""The text that ``kubectl exec`` prints after a program in the container has failed (k8s.io/kubectl, pkg/cmd/exec)."""


async def fetch_agent_status(kubectl: Kubectl, pod: Pod, seconds: float) -> JSON:
    """Return the status document of the agent in a pod, as ``schemas/status.schema.json`` describes it.

    The keys of the document are not checked: the agent can have another version.

    Raises:
        KubectlError: the agent does not respond within `seconds`, or the operator may not execute programs in
            the pod (`cause` is `FORBIDDEN`).
    """
    arguments = (
        "exec",
        f"--namespace={pod.namespace}",
        pod.name,
        f"--container={pod.agent_container}",
        "--",
        "genplug",
        "status",
        "-o",
        "json",
    )
    output = await kubectl.run(*arguments, seconds=seconds)
    if output.code in (0, _NOT_READY) and (document := _decode(output.stdout)) is not None:
        return document
    if output.code == 0:
        raise KubectlError(kubectl.show(arguments), "printed a text that is not the status of an agent", Cause.INVALID)
    raise kubectl.error(arguments, output.code, output.stderr.removeprefix(_EXIT_TEXT))


def _decode(text: bytes) -> JSON | None:
    try:
        document = parse_json(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) and document.get("kind") == "Status" else None
