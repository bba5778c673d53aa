"""Pods whose containers check that no other container holds their devices.

The program of a container writes its process and the start time of it to a symbolic link for each of its devices, in a
directory of the node. If the link exists and its process runs, another container holds the device: the program reports
a violation.
"""

from collections.abc import Mapping
from typing import Any

from tests.cluster.claims import build_claim_pod
from tests.cluster.cluster import build_container, build_pod
from tests.cluster.machine import Machine

DIRECTORY = "/run/holders"
"""The directory of the locks on the node."""
_HOLD = """\
echo $NAME >> $HOLDERS/starts
read_process() { cut -d ' ' -f 1,22 /proc/$1/stat 2>/dev/null | tr ' ' :; }
for path in $DEVICES/$KIND[0-9]*; do
  [ -e $path ] || { echo $NAME has no device >> $HOLDERS/violations; exit 1; }
  link=$HOLDERS/${path##*/}
  until ln -s $(read_process $$) $link 2>/dev/null; do
    other=$(readlink $link)
    if [ "$(read_process ${other%:*})" = "$other" ]; then
      echo $NAME has ${path##*/}, which process $other has >> $HOLDERS/violations
      exit 1
    fi
    rm -f $link
  done
done
"""
END_ON_TERM = "trap 'exit 0' TERM\nsleep infinity &\nwait\n"
"""A program that ends at once when its pod is deleted."""
_IGNORE_TERM = "trap '' TERM\nexec sleep infinity\n"


def build_script(*, ignores_term: bool = False) -> str:
    """Return the program, which reads ``NAME``, ``KIND``, ``DEVICES`` and ``HOLDERS`` from its environment."""
    return _HOLD + (_IGNORE_TERM if ignores_term else END_ON_TERM)


def build_holder(
    name: str, kind: str, template: str | None = None, *, ignores_term: bool = False, grace_seconds: int = 1
) -> dict[str, Any]:
    """Return a pod with a device: of the claim of a template, or of ``limits`` for ``test.example/<kind>``."""
    devices = {} if template is not None else {kind: 1}
    container = build_container("main", build_script(ignores_term=ignores_term), **devices)
    environment = {"NAME": name, "KIND": kind, "DEVICES": "/dev", "HOLDERS": "/holders"}
    container["env"] = [{"name": key, "value": value} for key, value in environment.items()]
    container["volumeMounts"] = [{"name": "holders", "mountPath": "/holders"}]
    volume = {"name": "holders", "hostPath": {"path": DIRECTORY, "type": "DirectoryOrCreate"}}
    # With the process namespace of the node, a program sees whether another container runs.
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": grace_seconds, "volumes": [volume], "hostPID": True}
    if template is None:
        return build_pod(name, container, **spec)
    container["resources"] = {"claims": [{"name": "claim"}]}
    return build_claim_pod(name, template, container, **spec)


def read_violations(machine: Machine) -> list[str]:
    """Return the violations that containers have reported."""
    path = machine.directory / "run/holders/violations"
    return path.read_text().splitlines() if path.exists() else []


def count_starts(machine: Machine) -> Mapping[str, int]:
    """Return the number of starts of a container by the name of its pod."""
    path = machine.directory / "run/holders/starts"
    names = path.read_text().splitlines() if path.exists() else []
    return {name: names.count(name) for name in names}
