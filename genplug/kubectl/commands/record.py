"""``kubectl genplug record``: the governance record of a release."""

import argparse
import asyncio
import time
from collections.abc import Iterable, Sequence

from genplug import __version__
from genplug.cli.record import print_record
from genplug.error_groups import unwrap_error_group
from genplug.kubectl.client import Cause, Kubectl, KubectlError
from genplug.kubectl.json_values import JSON, read_map, read_text
from genplug.kubectl.objects import CONTAINER, POOL_LABEL
from genplug.kubectl.options import build_client, namespace_options, parse_seconds, print_message
from genplug.kubectl.progress import ProgressBar
from genplug.kubectl.release_access import Objects, RoleObjects
from genplug.kubectl.release_config import list_config_maps
from genplug.kubectl.release_objects import NodeAnswer, read_account, read_labels, read_name
from genplug.kubectl.release_record import INSTANCE_LABEL, ReleaseObjects, build_release_record
from genplug.observe.text import format_time
from genplug.record.facts import Unknown
from genplug.record.node import NODE_KIND, Generation
from genplug.spec.json_text import parse_json
from genplug.spec.printable import escape_document

DESCRIPTION = """\
Print the governance record of a release: image and digest on each node, deployment method, resources, node pools, the
found versions of drivers and firmware per pool, host mounts, security context, RBAC, who may edit what, health
monitoring, upgrade plan, and the configuration with its digest and the nodes that differ from it.

The command reads objects with your kubectl and your rights, and runs `genplug record` in the pod of each agent. It
changes nothing and reads no Secret. A fact that you may not read, or that an agent does not return, is marked as not
known, with the reason.
"""
EPILOG = """\
examples:
  kubectl genplug record                                 the only release, as Markdown
  kubectl genplug record genplug -n genplug -o yaml > record.yaml

`genplug schema record` describes the keys of `-o json` and `-o yaml`. All formats have the same content.
Only the key `generated` contains a time.

exit codes: 0 success, 1 the cluster cannot be queried, 2 usage error, no such release or several releases
"""
_NOT_FOUND = 2
_SELECTOR = f"--selector={POOL_LABEL}"
_ALL_NAMESPACES = ("--all-namespaces",)
_MANAGED_FIELDS = "--show-managed-fields"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("release", metavar="RELEASE", nargs="?", help="name of the release (default: the only release)")
    parser.add_argument(
        "-o",
        "--output",
        choices=("markdown", "yaml", "json"),
        default="markdown",
        help="format of the output (default: markdown)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=parse_seconds,
        default=60.0,
        help="time limit of the response of an agent (default: 60)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the record and return the exit code."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    kubectl = build_client(arguments)
    daemon_sets = await kubectl.list_objects(
        _keep, "get", "daemonsets.apps", *namespace_options(arguments), _SELECTOR, _MANAGED_FIELDS
    )
    releases = sorted({_release_of(daemon_set) for daemon_set in daemon_sets})
    selected = [release for release in releases if arguments.release in {None, release[1]}]
    if len(selected) != 1:
        names = ", ".join(f"{name} in namespace {namespace}" for namespace, name in releases) or "none"
        hint = "pass RELEASE and --namespace" if selected else "check RELEASE, --namespace and the context"
        print_message("record", f"expected one release of genplug, found {names}; {hint}")
        return _NOT_FOUND
    daemon_sets = [daemon_set for daemon_set in daemon_sets if _release_of(daemon_set) == selected[0]]
    generation = Generation(format_time(time.time()), "kubectl genplug record", __version__)
    with unwrap_error_group(KubectlError):
        objects = await _fetch_objects(kubectl, selected[0], daemon_sets, arguments.timeout)
    document = escape_document(build_release_record(generation, objects).as_json())
    print_record(document, arguments.output)
    return 0


async def _fetch_objects(
    kubectl: Kubectl, release: tuple[str, str], daemon_sets: Sequence[JSON], seconds: float
) -> ReleaseObjects:
    """Return the objects of a release; those that cannot be read are replaced by the reason."""
    namespace, name = release
    own = (f"--namespace={namespace}",)
    maps = sorted({name for daemon_set in daemon_sets for _, name in list_config_maps(daemon_set)})
    accounts = sorted({read_account(daemon_set) for daemon_set in daemon_sets})
    label = f"--selector={INSTANCE_LABEL}={name}"
    async with asyncio.TaskGroup() as group:

        def start(resource: str, *options: str) -> asyncio.Task[Objects]:
            return group.create_task(_list(kubectl, resource, *options))

        answers = group.create_task(_ask_agents(kubectl, namespace, daemon_sets, seconds))
        config_maps = {
            name: group.create_task(_get(kubectl, "configmap", name, *own, _MANAGED_FIELDS)) for name in maps
        }
        service_accounts = {name: group.create_task(_get(kubectl, "serviceaccount", name, *own)) for name in accounts}
        nodes = start("nodes")
        roles = start("roles.rbac.authorization.k8s.io", *_ALL_NAMESPACES)
        cluster_roles = start("clusterroles.rbac.authorization.k8s.io")
        role_bindings = start("rolebindings.rbac.authorization.k8s.io", *_ALL_NAMESPACES)
        cluster_role_bindings = start("clusterrolebindings.rbac.authorization.k8s.io")
        policies = start("validatingadmissionpolicies.admissionregistration.k8s.io", label)
        policy_bindings = start("validatingadmissionpolicybindings.admissionregistration.k8s.io", label)
        network_policies = start("networkpolicies.networking.k8s.io", *own)
        quotas = start("resourcequotas", *_ALL_NAMESPACES)
    return ReleaseObjects(
        namespace=namespace,
        daemon_sets=sorted(daemon_sets, key=read_name),
        answers=answers.result(),
        nodes=nodes.result(),
        config_maps={name: task.result() for name, task in config_maps.items()},
        accounts={name: task.result() for name, task in service_accounts.items()},
        roles=RoleObjects(
            roles.result(), cluster_roles.result(), role_bindings.result(), cluster_role_bindings.result()
        ),
        admission_policies=_select_namespace(policies.result(), namespace),
        admission_bindings=_select_namespace(policy_bindings.result(), namespace),
        network_policies=network_policies.result(),
        quotas=quotas.result(),
    )


async def _ask_agents(
    kubectl: Kubectl, namespace: str, daemon_sets: Sequence[JSON], seconds: float
) -> list[NodeAnswer]:
    """Return the pods of the DaemonSets by node, each with the record of its agent or the reason for none.

    Raises:
        KubectlError: the pods cannot be listed.
    """
    pods = await kubectl.list_objects(_keep, "get", "pods", f"--namespace={namespace}", _SELECTOR)
    owners = {read_text(read_map(daemon_set, "metadata"), "uid") for daemon_set in daemon_sets}
    own = [pod for pod in pods if owners & set(_owner_uids(pod)) and read_text(read_map(pod, "spec"), "nodeName")]
    answers: list[NodeAnswer] = []
    with ProgressBar("agents") as bar:

        async def ask(pod: JSON) -> None:
            answers.append(NodeAnswer(pod, await _fetch_record(kubectl, namespace, pod, seconds)))
            bar.report(len(answers), len(own))

        await asyncio.gather(*map(ask, own))
    return sorted(answers, key=lambda answer: (answer.node, read_name(answer.pod)))


async def _fetch_record(kubectl: Kubectl, namespace: str, pod: JSON, seconds: float) -> JSON | Unknown:
    name = read_name(pod)
    arguments = (
        "exec",
        f"--namespace={namespace}",
        name,
        f"--container={CONTAINER}",
        "--",
        "genplug",
        "record",
        "-ojson",
    )
    try:
        output = await kubectl.run(*arguments, seconds=seconds)
        if output.code != 0:
            raise kubectl.error(arguments, output.code, output.stderr)
        document = parse_json(output.stdout)
    except KubectlError as error:
        return Unknown(f"the agent did not return a record: {error.reason}")
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("kind") == NODE_KIND:
        return document
    return Unknown("the agent returned a text that is not a record")


async def _list(kubectl: Kubectl, resource: str, *options: str) -> Objects:
    try:
        return await kubectl.list_objects(_keep, "get", resource, *options)
    except KubectlError as error:
        return Unknown(_describe_error(error, resource))


async def _get(kubectl: Kubectl, resource: str, name: str, *options: str) -> JSON | Unknown:
    if name.startswith("-"):
        # The API server does not check the names of ConfigMaps in volumes, and kubectl would read an option.
        return Unknown(f"'{name}' is not the name of an object")
    try:
        return await kubectl.get_json("get", resource, name, *options)
    except KubectlError as error:
        return Unknown(_describe_error(error, f"{resource} {name}"))


def _describe_error(error: KubectlError, what: str) -> str:
    if error.cause is Cause.FORBIDDEN:
        return f"forbidden: your user may not read {what}"
    return f"{what} cannot be read: {error.reason}"


def _keep(item: JSON) -> JSON:
    return item


def _release_of(daemon_set: JSON) -> tuple[str, str]:
    """Return the namespace and the name of the release of a DaemonSet."""
    name = read_labels(daemon_set).get(INSTANCE_LABEL) or read_name(daemon_set)
    return read_text(read_map(daemon_set, "metadata"), "namespace"), name


def _owner_uids(pod: JSON) -> Iterable[str]:
    owners = read_map(pod, "metadata").get("ownerReferences")
    return [read_text(owner, "uid") for owner in owners if isinstance(owner, dict)] if isinstance(owners, list) else []


def _select_namespace(objects: Objects, namespace: str) -> Objects:
    """Return the cluster-scoped objects of a release, whose names the chart ends with the namespace."""
    if isinstance(objects, Unknown):
        return objects
    return [item for item in objects if read_name(item).endswith(f".{namespace}")]
