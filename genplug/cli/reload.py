"""``genplug reload``: makes the agent of this node read its configuration and scan for devices now."""

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from genplug.cli.output import print_message

DESCRIPTION = """\
Make the agent of this node read its configuration and scan for devices now, as SIGHUP does. The agent does so by itself
when files, devices or drivers change; the command is for changes that the kernel does not report, for example of a file
in /proc or on a network file system.
"""
EPILOG = """\
examples:
  genplug reload
  kubectl exec --namespace genplug daemonset/genplug -- genplug reload

The command runs in the PID namespace of the agent, with the same user or as root.

exit codes: 0 requested, 1 no agent found or not permitted, 2 usage error
"""
_PROC = Path("/proc")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--kubelet-dir",
        metavar="DIR",
        type=Path,
        default=Path(os.environ.get("GENPLUG_KUBELET_DIR") or "/var/lib/kubelet"),
        help="directory of the kubelet (default: GENPLUG_KUBELET_DIR from the environment, else /var/lib/kubelet)",
    )
    directory = os.environ.get("GENPLUG_DEVICE_PLUGINS_DIR")
    parser.add_argument(
        "--device-plugins-dir",
        metavar="DIR",
        type=Path,
        default=Path(directory) if directory else None,
        help="directory that the agent serves (default: GENPLUG_DEVICE_PLUGINS_DIR from the environment, else "
        "device-plugins in --kubelet-dir)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    directory: Path = arguments.device_plugins_dir or arguments.kubelet_dir / "device-plugins"
    process = next(find_lock_owners(directory), None)
    if process is None:
        print_message(
            "reload",
            f"no agent of this PID namespace serves {directory}, or its files in /proc cannot be read; run the command "
            "in the pod of the agent, as the user of the agent or as root",
        )
        return 1
    try:
        os.kill(process, signal.SIGHUP)
    except OSError as error:
        print_message("reload", f"cannot send SIGHUP to process {process}: {error.strerror}; run the command as root")
        return 1
    print_message("reload", f"process {process} reads its configuration and scans for devices")
    return 0


def find_lock_owners(directory: Path) -> Iterator[int]:
    """Yield the processes that have the lock of an agent on a device-plugins directory.

    /proc/PID/fdinfo lists the locks of each descriptor (Documentation/filesystems/proc.rst, section 3.8; Linux 4.1).
    """
    try:
        wanted = directory.stat()
    except OSError:
        return
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        # A process can end at any time, and those of other users cannot be read.
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                status = descriptor.stat()
                if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino) and _is_locked(
                    process / "fdinfo" / descriptor.name
                ):
                    yield int(process.name)
                    break


def _is_locked(descriptor: Path) -> bool:
    return any(line.startswith("lock:") and "FLOCK" in line for line in descriptor.read_text().splitlines())
