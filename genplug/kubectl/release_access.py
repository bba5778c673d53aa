"""Rights in the record of a release: the roles of the agents, the editors of their objects, and admission policies."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from genplug.kubectl.json_values import JSON, read_map, read_maps, read_text
from genplug.kubectl.release_objects import read_words
from genplug.record.facts import Fact, Known, Unknown

Objects = Sequence[JSON] | Unknown
"""Objects of the API server, or why they cannot be listed."""

_CHANGES = ("create", "update", "patch", "delete", "deletecollection")
"""The verbs of the API that change objects."""
_EDITED = (("", "configmaps"), ("apps", "daemonsets"), ("", "pods"))
"""The API group and the resource of the objects that control the agents."""


class RoleObjects(Struct, frozen=True):
    """The objects of RBAC: roles and bindings of all namespaces and of the cluster."""

    roles: Objects
    cluster_roles: Objects
    role_bindings: Objects
    cluster_role_bindings: Objects

    @property
    def missing(self) -> Unknown | None:
        """Why a part cannot be listed, or None: an answer from the other parts would be a guess."""
        parts = (self.roles, self.cluster_roles, self.role_bindings, self.cluster_role_bindings)
        return next((part for part in parts if isinstance(part, Unknown)), None)

    def list_bindings(self) -> Iterator[JSON]:
        """Yield the bindings of the cluster, then those of the namespaces."""
        for part in (self.cluster_role_bindings, self.role_bindings):
            yield from () if isinstance(part, Unknown) else part

    def find_rules(self, binding: JSON) -> Fact:
        """Return the rules of the role of a binding."""
        reference = read_map(binding, "roleRef")
        kind, name = read_text(reference, "kind"), read_text(reference, "name")
        candidates = self.cluster_roles if kind == "ClusterRole" else self.roles
        namespace = "" if kind == "ClusterRole" else read_text(read_map(binding, "metadata"), "namespace")
        for role in () if isinstance(candidates, Unknown) else candidates:
            metadata = read_map(role, "metadata")
            if (read_text(metadata, "name"), read_text(metadata, "namespace")) == (name, namespace):
                return Known(tuple(read_maps(role, "rules")), f"{kind} {name}")
        return Unknown(f"the {kind} {name} does not exist")


def describe_roles(objects: RoleObjects, namespace: str, accounts: Iterable[str]) -> Fact:
    """Return the roles that are bound to service accounts of a namespace, or to a group that contains them."""
    if objects.missing is not None:
        return objects.missing
    names = set(accounts)
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"}
    records = []
    for binding in objects.list_bindings():
        for subject in read_maps(binding, "subjects"):
            kind, name = read_text(subject, "kind"), read_text(subject, "name")
            is_account = kind == "ServiceAccount" and read_text(subject, "namespace") == namespace and name in names
            if not is_account and not (kind == "Group" and name in groups):
                continue
            rules = objects.find_rules(binding)
            reference = read_map(binding, "roleRef")
            records.append(
                {
                    "subject": _format_subject(subject),
                    "role": f"{read_text(reference, 'kind')} {read_text(reference, 'name')}",
                    "binding": _format_binding(binding),
                    "rules": rules
                    if isinstance(rules, Unknown)
                    else Known(tuple(map(_describe_rule, rules.value)), rules.source),
                }
            )
    records.sort(key=lambda record: (record["subject"], record["role"], record["binding"]))
    return Known(tuple(records), "Roles, ClusterRoles, RoleBindings and ClusterRoleBindings")


def describe_editors(objects: RoleObjects, namespace: str) -> Fact:
    """Return who may change ConfigMaps, DaemonSets and pods of a namespace by RBAC."""
    if objects.missing is not None:
        return objects.missing
    found: dict[tuple[str, str, tuple[str, ...], str], set[str]] = {}
    for binding in objects.list_bindings():
        if read_text(read_map(binding, "metadata"), "namespace") not in {"", namespace}:
            continue
        rules = objects.find_rules(binding)
        if isinstance(rules, Unknown):
            continue
        for group, resource in _EDITED:
            for rule in rules.value:
                verbs = _list_changes(rule, group, resource)
                names = tuple(sorted(read_words(rule, "resourceNames")))
                for subject in read_maps(binding, "subjects") if verbs else ():
                    key = (_format_subject(subject), resource, names, _format_binding(binding))
                    found.setdefault(key, set()).update(verbs)
    records = tuple(
        {
            "subject": subject,
            "object": resource,
            "verbs": [verb for verb in _CHANGES if verb in verbs],
            "names": list(names),
            "binding": binding,
        }
        for (subject, resource, names, binding), verbs in sorted(found.items())
    )
    return Known(records, "Roles, ClusterRoles, RoleBindings and ClusterRoleBindings")


def describe_admission_policies(policies: Objects, bindings: Objects) -> Fact:
    """Return the admission policies of the release, with their messages and the actions of their bindings."""
    if isinstance(policies, Unknown):
        return policies
    if isinstance(bindings, Unknown):
        return bindings
    records = []
    for policy in policies:
        name, spec = read_text(read_map(policy, "metadata"), "name"), read_map(policy, "spec")
        actions = {
            action
            for binding in bindings
            if read_text(read_map(binding, "spec"), "policyName") == name
            for action in read_words(read_map(binding, "spec"), "validationActions")
        }
        validations = read_maps(spec, "validations")
        records.append(
            {
                "name": name,
                "failurePolicy": read_text(spec, "failurePolicy") or "Fail",
                "actions": sorted(actions),
                "restrictions": [
                    read_text(entry, "message")
                    or read_text(entry, "messageExpression")
                    or read_text(entry, "expression")
                    for entry in validations
                ],
            }
        )
    records.sort(key=lambda record: str(record["name"]))
    return Known(tuple(records), "ValidatingAdmissionPolicies with the labels of the release")


def _list_changes(rule: JSON, group: str, resource: str) -> set[str]:
    """Return the verbs with which a rule changes objects of a resource."""
    if not {group, "*"} & set(read_words(rule, "apiGroups")):
        return set()
    if not {resource, "*"} & set(read_words(rule, "resources")):
        return set()
    verbs = set(read_words(rule, "verbs"))
    return set(_CHANGES) if "*" in verbs else verbs & set(_CHANGES)


def _describe_rule(rule: JSON) -> dict[str, Any]:
    groups = read_words(rule, "apiGroups")
    resources = [
        f"{resource}.{group}" if group else resource for group in groups for resource in read_words(rule, "resources")
    ]
    return {
        "verbs": sorted(read_words(rule, "verbs")),
        "resources": sorted([*resources, *read_words(rule, "nonResourceURLs")]),
        "names": sorted(read_words(rule, "resourceNames")),
    }


def _format_subject(subject: JSON) -> str:
    kind, name, namespace = (read_text(subject, key) for key in ("kind", "name", "namespace"))
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def _format_binding(binding: JSON) -> str:
    metadata = read_map(binding, "metadata")
    name, namespace = read_text(metadata, "name"), read_text(metadata, "namespace")
    return f"RoleBinding {namespace}/{name}" if namespace else f"ClusterRoleBinding {name}"
