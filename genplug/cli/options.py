"""Options that several commands have, and the types of their values."""

import argparse
import os
import posixpath
import re
import urllib  # noqa: F401 - the parent of a module has to be imported before it is replaced
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genplug.lean_imports import replace_modules
from genplug.spec.names import DRIVER_DOMAIN, is_subdomain
from genplug.spec.numbers import parse_natural

# pathlib needs it only for URIs of paths, and it takes 2 ms to import.
with replace_modules("urllib.parse"):
    from pathlib import Path

if TYPE_CHECKING:
    from genplug.config.inputs import InputRequest

LISTEN_VARIABLE = "GENPLUG_LISTEN"
POLICY_VARIABLE = "GENPLUG_POLICY"
DRA_DRIVER_VARIABLE = "GENPLUG_DRA_DRIVER"
CDI_SEARCH_DIRS_VARIABLE = "GENPLUG_CDI_SEARCH_DIRS"
DEFAULT_CDI_SEARCH_DIRS = "/etc/cdi:/var/run/cdi"
"""The directories of :data:`genplug.hardware.host.DEFAULT_CDI_DIRS`, which --help does not import."""
CONFIG_HELP = "configuration file, or a directory such as a mounted ConfigMap; later files override earlier files"
NODE_NAME_VARIABLES = ("GENPLUG_NODE_NAME", "NODE_NAME")
"""The environment variables of the node name, by precedence; the chart sets ``NODE_NAME`` with the downward API."""

_SIZE = re.compile(r"(\d{1,9})(?:([KMG])i)?", re.ASCII)
_PERIOD = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_PERIOD_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

ROOT_HELP = "root directory of the host, or an archive of 'genplug capture' (default: /)"
_MAX_DRIVER_CHARACTERS = 63
"""The longest name of a driver (``DriverNameMaxLength`` of resource.k8s.io/v1)."""
_DRIVER_HELP = "name of the driver of Dynamic Resource Allocation, for resources with 'serve: dra'"
_STANDARD_DOMAIN = "resource.kubernetes.io"
_MAX_PORT = 65535
_MAX_PORT_DIGITS = 5
MAX_SHOWN = 80
"""Characters of an invalid value that a message shows."""

Address = tuple[str, int]
"""Host and port; an empty host means all addresses."""


WARNINGS_CODE = 3
"""The exit code of a command with ``--strict`` if there are warnings and no errors."""


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add ``--root``; its value is an argument for :func:`genplug.capture.archive.open_root`."""
    parser.add_argument("--root", metavar="DIR", default="/", help=ROOT_HELP)


def add_cdi_search_dirs(parser: argparse.ArgumentParser) -> None:
    """Add ``--cdi-search-dirs``; its value is a tuple of paths on the host."""
    parser.add_argument(
        "--cdi-search-dirs",
        metavar="DIR:DIR",
        type=_parse_directories,
        default=os.environ.get(CDI_SEARCH_DIRS_VARIABLE) or DEFAULT_CDI_SEARCH_DIRS,
        help="directories on the host from which the container runtime reads CDI files ('cdi_spec_dirs' in its "
        "configuration), separated by ':', by increasing priority; CDI devices of other programs are looked up there "
        f"(default: {CDI_SEARCH_DIRS_VARIABLE} from the environment, else {DEFAULT_CDI_SEARCH_DIRS})",
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``; its value is a path, or None for the default policy."""
    parser.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        default=Path(os.environ[POLICY_VARIABLE]) if os.environ.get(POLICY_VARIABLE) else None,
        help=f"policy that limits what the configuration may do (default: {POLICY_VARIABLE} from the environment; "
        "without a policy, mounts and block devices are not allowed, and device nodes must be under /dev)",
    )


def add_color(parser: argparse.ArgumentParser) -> None:
    """Add ``--color``; its value is an argument for :func:`genplug.cli.output.use_color`."""
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="print colors; auto prints them on a terminal, unless the environment has NO_COLOR (default: auto)",
    )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add ``--values`` and ``--pool``, which select configurations of the chart."""
    parser.add_argument(
        "--values",
        action="append",
        metavar="FILE",
        default=[],
        help="values file of the chart, or '-'; later files override earlier files, as with helm",
    )
    parser.add_argument("--pool", metavar="NAME", help="pool of the chart (default: all pools)")


def build_request(
    arguments: argparse.Namespace, paths: Sequence[str], *, has_all_nodes: bool = False, is_unlimited: bool = False
) -> "InputRequest":
    """Return the request for the input that the options of a command select; report a repeated standard input."""
    from genplug.config.inputs import InputRequest  # noqa: PLC0415 - --help does not need it

    policy = None if arguments.policy is None else str(arguments.policy)
    request = InputRequest(
        paths,
        arguments.values,
        arguments.pool,
        arguments.node_name,
        policy,
        has_all_nodes=has_all_nodes,
        is_unlimited=is_unlimited,
        driver=arguments.dra_driver,
        default_driver=_read_default_driver(arguments),
    )
    if request.has_repeated_stdin:
        arguments.usage_error("'-', the standard input, can be an argument once only")
    return request


def add_node_name(parser: argparse.ArgumentParser) -> None:
    """Add ``--node-name``, which selects ``node.NAME.yaml`` and is the value of ``${node.name}``.

    The default comes from the environment, so that a command in the container of the agent uses its configuration.
    """
    parser.add_argument(
        "--node-name",
        metavar="NAME",
        default=next(filter(None, map(os.environ.get, NODE_NAME_VARIABLES)), None),
        help="name of the Kubernetes node; node.NAME.yaml is merged last (default: NODE_NAME from the environment)",
    )


def add_dra_driver(parser: argparse.ArgumentParser) -> None:
    """Add ``--dra-driver``; its value is the name of the driver of Dynamic Resource Allocation."""
    parser.add_argument(
        "--dra-driver",
        metavar="NAME",
        type=_parse_driver,
        default=os.environ.get(DRA_DRIVER_VARIABLE) or DRIVER_DOMAIN,
        help=f"{_DRIVER_HELP} (default: {DRA_DRIVER_VARIABLE} from the environment, else {DRIVER_DOMAIN})",
    )


def add_input_driver(parser: argparse.ArgumentParser) -> None:
    """Add ``--dra-driver`` for a command with ``--values``; without it, the driver is that of the input."""
    parser.add_argument(
        "--dra-driver",
        metavar="NAME",
        type=_parse_driver,
        help=f"{_DRIVER_HELP} (default: dra.driverName in the values of the chart; for other input "
        f"{DRA_DRIVER_VARIABLE} from the environment, else {DRIVER_DOMAIN})",
    )


def _read_default_driver(arguments: argparse.Namespace) -> str:
    """Return the driver for input without values of the chart; report a name in the environment that is not valid."""
    try:
        return _parse_driver(os.environ.get(DRA_DRIVER_VARIABLE) or DRIVER_DOMAIN)
    except argparse.ArgumentTypeError as error:
        arguments.usage_error(f"{DRA_DRIVER_VARIABLE}: {error}")
        raise


def _parse_driver(text: str) -> str:
    if not is_subdomain(text) or len(text) > _MAX_DRIVER_CHARACTERS:
        raise argparse.ArgumentTypeError(
            f"expected a DNS name of at most {_MAX_DRIVER_CHARACTERS} characters, for example dra.example.com, found "
            f"{text[:MAX_SHOWN]!r}"
        )
    if text == _STANDARD_DOMAIN:
        raise argparse.ArgumentTypeError(f"{_STANDARD_DOMAIN} is reserved for Kubernetes; use a domain of your own")
    return text


def parse_address(text: str) -> Address:
    """Return the host and port of ``HOST:PORT``; an IPv6 address can be in brackets.

    Raises:
        argparse.ArgumentTypeError: the text is not ``HOST:PORT``.
    """
    host, colon, port = text.rpartition(":")
    if "/" in text:
        start = text.partition("://")[2].partition("/")[0]
        hint = f": write {start}" if start else ""
        raise argparse.ArgumentTypeError(
            f"expected HOST:PORT without scheme and path, found {text[:MAX_SHOWN]!r}{hint}"
        )
    number = parse_natural(port, _MAX_PORT_DIGITS)
    if not colon or number is None or number > _MAX_PORT:
        raise argparse.ArgumentTypeError(
            f"expected HOST:PORT, for example 127.0.0.1:9808, found {text[:MAX_SHOWN]!r} (the default comes "
            f"from the environment variable {LISTEN_VARIABLE})"
        )
    return host.strip("[]"), number


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``10Mi``.

    Raises:
        argparse.ArgumentTypeError: the text is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 10Mi, found {text[:MAX_SHOWN]!r}")
    return int(match[1]) << 10 * " KMG".index(match[2] or " ")


def parse_period(text: str) -> float:
    """Return the seconds of a period such as ``90d`` or ``36h``.

    Raises:
        argparse.ArgumentTypeError: the text is not a period.
    """
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a period such as 90d, 36h or 15m, found {text[:MAX_SHOWN]!r}")
    return int(match[1]) * _PERIOD_SECONDS[match[2]]


def _parse_directories(text: str) -> tuple[str, ...]:
    directories = tuple(dict.fromkeys(posixpath.normpath(path) for path in text.split(":") if path))
    for directory in directories:
        if not directory.startswith("/"):
            raise argparse.ArgumentTypeError(
                f"expected absolute paths, separated by ':', found {directory!r} (the default comes from the "
                f"environment variable {CDI_SEARCH_DIRS_VARIABLE})"
            )
    return directories


def format_address(address: Address) -> str:
    """Return an address as ``HOST:PORT``, with brackets around an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
