"""The environment variables that change which code a container runs, which hosts it trusts or which devices it gets.

A device needs none of them. A policy allows single variables (``env.allow``).
"""

import fnmatch
import re
from functools import lru_cache

from attrs import frozen


@frozen
class DeniedVariables:
    """Variables that are denied for one reason: globs over their names, and what they do, as a clause after "it"."""

    names: tuple[str, ...]
    effect: str


DENIED_VARIABLES = (
    # glibc ignores these in programs with more rights than their caller (sysdeps/generic/unsecvars.h).
    DeniedVariables(
        (
            *("LD_*", "GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH"),
            *("MALLOC_TRACE", "NIS_PATH", "NLSPATH", "RESOLV_HOST_CONF", "RES_OPTIONS", "TMPDIR", "TZDIR"),
        ),
        "controls the dynamic loader or the C library",
    ),
    DeniedVariables(
        (
            *("PATH", "HOME", "SHELL", "ENV", "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "IFS", "CDPATH"),
            *("GLOBIGNORE", "PROMPT_COMMAND", "PS4", "FPATH", "ZDOTDIR", "EDITOR", "VISUAL", "PAGER", "MANPAGER"),
            *("LESSOPEN", "LESSCLOSE"),
        ),
        "controls which programs a shell runs",
    ),
    DeniedVariables(
        (
            *("PYTHON*", "PERL5*", "PERLLIB", "PERL_*", "RUBYOPT", "RUBYLIB", "GEM_*", "BUNDLE_*"),
            *("NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "NODE_TLS_*", "NODE_REPL_*"),
            *("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_OPTS", "JAVA_HOME", "CLASSPATH"),
            *("PHPRC", "PHP_INI_SCAN_DIR", "LUA_*", "DOTNET_*", "COMPlus_*", "CORECLR_*", "COR_PROFILER*", "ERL_*"),
            *(
                "ELIXIR_ERL_OPTIONS",
                "R_PROFILE*",
                "R_ENVIRON*",
                "R_LIBS*",
                "JULIA_LOAD_PATH",
                "JULIA_DEPOT_PATH",
                "GUILE_LOAD*",
                "TCLLIBPATH",
            ),
            *("GODEBUG", "GTK_MODULES", "GTK_PATH", "GIO_MODULE_DIR", "GIO_EXTRA_MODULES", "QT_PLUGIN_PATH"),
        ),
        "controls what a language runtime or a framework loads",
    ),
    DeniedVariables(
        ("PIP_*", "UV_INDEX*", "NPM_CONFIG_*", "npm_config_*", "YARN_*", "CARGO_*", "GOPROXY", "GOFLAGS", "CONDA_*"),
        "controls what a package manager installs",
    ),
    DeniedVariables(
        ("GIT_*", "SSH_*", "RSYNC_*", "SUDO_*", "DOCKER_*", "BUILDAH_*", "_LIBCONTAINER_*", "_CONTAINERS_*"),
        "controls which programs another program runs",
    ),
    DeniedVariables(
        (
            *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
            *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"),
            *("OPENSSL_*", "SSL_*", "SSLKEYLOGFILE", "CURL_CA_BUNDLE", "CURL_HOME", "REQUESTS_CA_BUNDLE"),
        ),
        "controls to which hosts a program connects, or which it trusts",
    ),
    # The kubelet sets them for services (Kubernetes documentation, "Accessing the Service").
    DeniedVariables(
        ("KUBERNETES_*", "KUBECONFIG", "*_SERVICE_HOST", "*_SERVICE_PORT", "*_SERVICE_PORT_*", "*_PORT_*_TCP*"),
        "controls with which services of the cluster a program communicates",
    ),
    DeniedVariables(
        ("*_PORT_*_UDP*", "*_PORT_*_SCTP*", "HOSTNAME", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"),
        "is set by the kubelet, the container runtime or the service manager",
    ),
    # NVIDIA Container Toolkit, Habana and Ascend container runtimes.
    DeniedVariables(
        (
            *("NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_REQUIRE_*", "NVIDIA_DISABLE_REQUIRE", "NVIDIA_MIG_*_DEVICES"),
            *("NVIDIA_IMEX_CHANNELS", "NVIDIA_GDS", "NVIDIA_MOFED", "NVIDIA_GDRCOPY", "NVIDIA_NVSWITCH"),
            *("HABANA_RUNTIME_*", "ASCEND_RUNTIME_*", "ASCEND_ALLOW_*"),
        ),
        "controls what a container runtime adds to the container",
    ),
)
"""The denied variables. Every other variable is allowed."""

_DEVICE_VARIABLES = re.compile(r".*_VISIBLE_DEVICES\Z")
"""Variables from which container runtimes take the devices of a container (NVIDIA, AMD, Habana, Ascend)."""
_DEVICE_WORDS = frozenset({"all", "void", "none"})
_DEVICE_SEPARATORS = re.compile(r"[\s,=:/]+")


@lru_cache(maxsize=4096)
def denied_variable_effect(name: str) -> str:
    """Return what a denied variable does, as a clause that follows "it"; an empty string if the name is allowed."""
    return next(
        (
            variables.effect
            for variables in DENIED_VARIABLES
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in variables.names)
        ),
        "",
    )


def denied_value_effect(name: str, value: str) -> str:
    """Return what a denied value of a variable does, as a clause that follows "it"; an empty string if it is allowed.

    A value is denied if it selects all devices or none: the container would not get the devices of its request.
    """
    if not _DEVICE_VARIABLES.match(name):
        return ""
    word = next((word for word in _DEVICE_SEPARATORS.split(value.lower()) if word in _DEVICE_WORDS), "")
    return f"selects the devices of the container by the word {word!r}, regardless of its request" if word else ""
