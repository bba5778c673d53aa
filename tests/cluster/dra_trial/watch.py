"""A watch of the API server by a process of its own, with the time at which each change arrived."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from msgspec import Struct

from tests.cluster.cluster import Cluster

Objects = Mapping[str, dict[str, Any]]
"""The objects of a watch by name."""


class Change(Struct, frozen=True):
    """A change: when it arrived (monotonic seconds), ``ADDED``, ``MODIFIED`` or ``DELETED``, and all objects after."""

    at: float
    kind: str
    name: str
    objects: Objects


class Watch:
    """Watches a collection, e.g. ``/api/v1/namespaces/default/pods``, while the context is open."""

    def __init__(self, cluster: Cluster, path: str, field_selector: str = "") -> None:
        # Without a version, the API server needs an etcd newer than that of Debian 12.
        selector = f"&fieldSelector={field_selector}" if field_selector else ""
        self._command = cluster.control.build_command("get", "--raw", f"{path}?watch=1&resourceVersion=0{selector}")
        self._changed = threading.Condition()
        self.changes: list[Change] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # nsenter, the parent of kubectl, does not pass on signals.
        for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self._process.wait()
        self._thread.join()

    @property
    def objects(self) -> Objects:
        """The present objects."""
        return self.changes[-1].objects if self.changes else {}

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            event = json.loads(line)
            if event["type"] not in {"ADDED", "MODIFIED", "DELETED"}:
                continue
            name = event["object"]["metadata"]["name"]
            objects = {key: value for key, value in self.objects.items() if key != name}
            if event["type"] != "DELETED":
                objects[name] = event["object"]
            with self._changed:
                self.changes.append(Change(time.monotonic(), event["type"], name, objects))
                self._changed.notify_all()

    def wait(self, holds: Callable[[Objects], bool], seconds: float = 60, since: int = 0) -> float:
        """Return the monotonic time at which a condition held first, after the change with the number ``since``.

        Raises:
            TimeoutError: The condition did not hold in time.
        """
        deadline = time.monotonic() + seconds
        if since and holds(self.changes[since - 1].objects):
            return self.changes[since - 1].at
        with self._changed:
            while True:
                for change in self.changes[since:]:
                    if holds(change.objects):
                        return change.at
                since = len(self.changes)
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError(f"the condition did not hold within {seconds} s; objects: {list(self.objects)}")

    def find(self, name: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 60) -> float:
        """Return the monotonic time at which a condition of an object held first."""
        return self.wait(lambda objects: name in objects and holds(objects[name]), seconds)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod is ready."""
    conditions = pod["status"].get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
