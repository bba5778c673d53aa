"""``genplug run``: the options of the agent. ``serving.py`` runs the agent, and is imported after they are parsed."""

import argparse
import gc
import importlib
import os
import signal
from types import ModuleType
from typing import Any

from genplug.cli.grpc_environment import set_grpc_environment
from genplug.cli.options import (
    CONFIG_HELP,
    MAX_SHOWN,
    add_cdi_search_dirs,
    add_dra_driver,
    add_node_name,
    add_policy,
    parse_address,
    parse_period,
    parse_size,
)
from genplug.lean_imports import hide_modules, hide_openssl_digests, postpone_patterns
from genplug.spec.numbers import parse_natural

PREFIX = "GENPLUG_"
HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that ``serving`` handles."""
_MIN_AUDIT_BYTES = 1 << 20
_MIN_AUDIT_SECONDS = 3600.0
_MIN_AUDIT_FILES, _MAX_AUDIT_FILES = 2, 1000
DESCRIPTION = """\
Run the agent of this node. The agent reads the configuration, discovers devices, registers each resource with the
kubelet and responds to the calls of the kubelet. It follows changes of the configuration, the devices and the kubelet.
SIGTERM stops the agent; SIGHUP makes it read the configuration and scan for devices immediately.

An invalid configuration or policy does not stop the agent. At the start it waits for valid files and offers nothing;
later the last valid files remain active.
"""
EPILOG = """\
example:
  genplug run --config /etc/genplug --root /host --listen 0.0.0.0:9808

Each option can also be set by an environment variable: GENPLUG_CONFIG (paths separated by ':'), GENPLUG_KUBELET_DIR,
GENPLUG_DEVICE_PLUGINS_DIR, GENPLUG_POD_RESOURCES_DIR, GENPLUG_ROOT, GENPLUG_CDI_DIR, GENPLUG_CDI_SEARCH_DIRS,
GENPLUG_NODE_NAME (or NODE_NAME), GENPLUG_POLICY, GENPLUG_LISTEN, GENPLUG_LOG_FORMAT, GENPLUG_LOG_LEVEL,
GENPLUG_AUDIT_DIR, GENPLUG_AUDIT_MAX_SIZE, GENPLUG_AUDIT_KEEP, GENPLUG_AUDIT_MAX_AGE, GENPLUG_AUDIT_FSYNC,
GENPLUG_AUDIT_REQUIRED, GENPLUG_DRA_DRIVER and GENPLUG_SERVICE_ACCOUNT_DIR. An option on the command line overrides its
variable.

exit codes: 0 stopped by a signal, 1 runtime error, 2 usage error
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    config = os.environ.get(f"{PREFIX}CONFIG")
    parser.add_argument(
        "--config",
        action="extend",
        nargs="+",
        metavar="PATH",
        default=None,
        required=not config,
        help=CONFIG_HELP,
    )
    add_policy(parser)
    add_host_options(parser)
    _add_option(
        parser,
        "--listen",
        default=None,
        metavar="HOST:PORT",
        type=parse_address,
        help="address for the status page, probes and metrics; :PORT means all addresses (default: disabled)",
    )
    _add_audit_options(parser)
    add_dra_options(parser)
    _add_option(
        parser,
        "--log-format",
        default="auto",
        choices=("auto", "json", "text"),
        help="format of the log; auto is text on a terminal, else json (default: auto)",
    )
    _add_option(
        parser,
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="minimum level of the events to log (default: info)",
    )


def add_host_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that state where the host, the kubelet and the CDI files are, and the name of the node."""
    _add_option(
        parser,
        "--kubelet-dir",
        default="/var/lib/kubelet",
        metavar="DIR",
        help="directory of the kubelet, from which the next two directories derive, and which has the sockets of the "
        "driver and the records of claims for resources with 'serve: dra' (default: /var/lib/kubelet)",
    )
    _add_option(
        parser,
        "--device-plugins-dir",
        default=None,
        metavar="DIR",
        help="directory with the kubelet's socket for device plugins, which the --root-dir of a kubelet does not move "
        "(default: device-plugins in --kubelet-dir)",
    )
    _add_option(
        parser,
        "--pod-resources-dir",
        default=None,
        metavar="DIR",
        help="directory with the kubelet's socket of the pod-resources API, which the --root-dir of a kubelet moves "
        "(default: pod-resources in --kubelet-dir)",
    )
    _add_option(
        parser,
        "--root",
        default="/",
        metavar="DIR",
        help="root directory of the host, for example /host in a container, or an archive of 'genplug capture' "
        "(default: /)",
    )
    _add_option(
        parser,
        "--cdi-dir",
        default="/var/run/cdi",
        metavar="DIR",
        help="directory on the host for the CDI files of 'inject: cdi' and 'serve: dra' (default: /var/run/cdi)",
    )
    add_cdi_search_dirs(parser)
    add_node_name(parser)


def _add_audit_options(parser: argparse.ArgumentParser) -> None:
    _add_option(
        parser,
        "--audit-dir",
        default=None,
        metavar="DIR",
        help="directory for the audit log, which records who had which device (default: no audit log)",
    )
    _add_option(
        parser,
        "--audit-max-size",
        default="10Mi",
        metavar="SIZE",
        type=_parse_audit_size,
        help="size after which the audit log continues in a new file, at least 1Mi (default: 10Mi)",
    )
    _add_option(
        parser,
        "--audit-keep",
        default="10",
        metavar="NUMBER",
        type=_parse_audit_keep,
        help="number of files of the audit log; older files are deleted (default: 10)",
    )
    _add_option(
        parser,
        "--audit-max-age",
        default="90d",
        metavar="PERIOD",
        type=_parse_audit_age,
        help="period after which a file of the audit log is deleted, at least 1h, for example 90d or 36h "
        "(default: 90d)",
    )
    _add_option(
        parser,
        "--audit-fsync",
        default="interval",
        choices=("never", "interval", "always"),
        help="when records of the audit log are synced to the disk: never, every second, or after each record "
        "(default: interval)",
    )
    _add_option(
        parser,
        "--audit-required",
        default="no",
        choices=("no", "yes"),
        help="yes makes the agent not ready while it cannot write the audit log; allocations continue (default: no)",
    )


def add_dra_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the driver of Dynamic Resource Allocation."""
    add_dra_driver(parser)
    _add_option(
        parser,
        "--service-account-dir",
        default="/var/run/secrets/kubernetes.io/serviceaccount",
        metavar="DIR",
        help="directory with the token and the certificates for the API server, for resources with 'serve: dra' "
        "(default: /var/run/secrets/kubernetes.io/serviceaccount)",
    )


def _parse_audit_size(text: str) -> int:
    if (size := parse_size(text)) < _MIN_AUDIT_BYTES:
        raise argparse.ArgumentTypeError(f"expected at least 1Mi, found {text[:MAX_SHOWN]!r}")
    return size


def _parse_audit_age(text: str) -> float:
    if (seconds := parse_period(text)) < _MIN_AUDIT_SECONDS:
        raise argparse.ArgumentTypeError(f"expected at least 1h, found {text[:MAX_SHOWN]!r}")
    return seconds


def _parse_audit_keep(text: str) -> int:
    number = parse_natural(text)
    if number is None or not _MIN_AUDIT_FILES <= number <= _MAX_AUDIT_FILES:
        raise argparse.ArgumentTypeError(
            f"expected a number from {_MIN_AUDIT_FILES} to {_MAX_AUDIT_FILES}, found {text[:MAX_SHOWN]!r}"
        )
    return number


def run(arguments: argparse.Namespace) -> int:
    """Run the agent until a signal, and return the exit code."""
    arguments.config = arguments.config or os.environ[f"{PREFIX}CONFIG"].split(":")
    # A signal during the start waits until its handler exists: SIGHUP would end the process, and the kernel discards a
    # SIGTERM of process 1 of a container that has no handler and does not block it (kernel/signal.c, sig_ignored).
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    set_grpc_environment()
    # Most objects of the start are kept. A start without collections takes a tenth less time; ``serving`` enables them.
    gc.disable()
    try:
        return int(import_serving().serve(arguments))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)


def import_serving() -> ModuleType:
    """Import the agent, without parts of libraries that it does not use.

    The agent has no TLS connections, and ssl takes 1.2 MiB of memory and 6 ms of the start.
    """
    with hide_modules("ssl"), hide_openssl_digests(), postpone_patterns():
        # First, because it imports msgspec without the modules that msgspec does not need.
        importlib.import_module("genplug.config")
        return importlib.import_module("genplug.cli.serving")


def _add_option(
    parser: argparse.ArgumentParser,
    option: str,
    *,
    default: str | None,
    **settings: Any,  # noqa: ANN401 - the types of argparse
) -> None:
    """Add an option whose default comes from an environment variable."""
    variable = PREFIX + option.removeprefix("--").replace("-", "_").upper()
    value = os.environ.get(variable) or default
    # argparse does not check a default against the choices.
    if "choices" in settings and value not in settings["choices"]:
        parser.error(f"{variable}: expected one of {', '.join(settings['choices'])}, found {value!r}")
    parser.add_argument(option, default=value, **settings)
