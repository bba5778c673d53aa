"""``genplug run``: flags and environment of the agent. ``serving.py`` does the rest, imported when flags are right."""

import argparse
import gc
import importlib
import os
import sys
from typing import Any

from genplug.cli.options import add_policy

PREFIX = "GENPLUG_"
DESCRIPTION = """\
Serve this node: read the configuration, find the devices, register each resource with the kubelet, answer it, and
follow every change of files, devices and kubelet. Ends on SIGTERM; SIGHUP reads the configuration again.
A wrong configuration or policy never ends it: at the start it waits for a right one, later the last good one stays in
force. It never runs without the policy that it is given.
"""
EPILOG = """\
example:
  genplug run --config /etc/genplug --root /host --listen 0.0.0.0:9808

Every flag can be an environment variable: GENPLUG_CONFIG (paths separated by ':'), GENPLUG_KUBELET_DIR, GENPLUG_ROOT,
GENPLUG_CDI_DIR, GENPLUG_NODE_NAME (or NODE_NAME), GENPLUG_POLICY, GENPLUG_LISTEN, GENPLUG_LOG_FORMAT,
GENPLUG_LOG_LEVEL. A flag wins.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    config = os.environ.get(f"{PREFIX}CONFIG")
    parser.add_argument(
        "--config",
        action="extend",
        nargs="+",
        metavar="PATH",
        default=None,
        required=not config,
        help="a file, or a directory as a ConfigMap mounts it; later files merge over earlier ones",
    )
    add_policy(parser)
    _add(
        parser,
        "--kubelet-dir",
        default="/var/lib/kubelet",
        metavar="DIR",
        help="the kubelet's directory, with device-plugins/ in it (default: /var/lib/kubelet)",
    )
    _add(
        parser,
        "--root",
        default="/",
        metavar="DIR",
        help="where the host's file system is seen, e.g. /host in a container, or an archive of 'genplug capture' "
        "(default: /)",
    )
    _add(
        parser,
        "--cdi-dir",
        default="/var/run/cdi",
        metavar="DIR",
        help="the host's directory of CDI files, for 'inject: cdi' (default: /var/run/cdi)",
    )
    parser.add_argument(
        "--node-name",
        metavar="NAME",
        default=os.environ.get(f"{PREFIX}NODE_NAME") or os.environ.get("NODE_NAME"),
        help="merge node.NAME.yaml last (default: NODE_NAME of the environment)",
    )
    _add(
        parser,
        "--listen",
        default="",
        metavar="HOST:PORT",
        help="serve /healthz, /readyz, /metrics and /statusz here (default: nowhere)",
    )
    _add(
        parser,
        "--log-format",
        default="auto",
        choices=("auto", "json", "text"),
        help="auto is text on a terminal, else json (default: auto)",
    )
    _add(
        parser,
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="the least level to log (default: info)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal, and return the exit code."""
    try:
        listen = _address(arguments.listen) if arguments.listen else None
    except ValueError as error:
        print(f"genplug run: --listen {arguments.listen}: {error}", file=sys.stderr)
        return 2
    arguments.listen = listen
    arguments.config = arguments.config or os.environ[f"{PREFIX}CONFIG"].split(":")
    # Before gRPC is loaded: it must not hook fork, which this process never does (grpc/grpc#17986).
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # What is made while starting stays: collecting meanwhile is a tenth of the start. ``serving`` begins it again.
    gc.disable()
    return int(importlib.import_module("genplug.cli.serving").serve(arguments))


def _add(parser: argparse.ArgumentParser, flag: str, *, default: str, **options: Any) -> None:  # noqa: ANN401 - argparse's
    variable = PREFIX + flag.removeprefix("--").replace("-", "_").upper()
    value = os.environ.get(variable) or default
    # argparse looks at the choices of what is typed only.
    if "choices" in options and value not in options["choices"]:
        parser.error(f"{variable}={value}: choose from {', '.join(options['choices'])}")
    parser.add_argument(flag, default=value, **options)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) >= 1 << 16:
        raise ValueError("write HOST:PORT, for example 127.0.0.1:9808, or :9808 for every address")
    return host.strip("[]"), int(port)
