"""The environment variables that change which code a container runs, which hosts it trusts or which devices it gets.

A device needs none of them. A policy allows single variables (``env.allow``).
"""

import fnmatch
import re
from functools import lru_cache

from msgspec import Struct


class DeniedVariables(Struct, frozen=True):
    """Variables that are denied for one reason: globs over their names, and what they do, as a clause after "it"."""

    names: tuple[str, ...]
    effect: str
    is_any_case: bool = False
    """Whether programs also read the variables with other upper and lower case."""


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
            *("PATH", "HOME", "SHELL", "ENV", "BASH_*", "BASHOPTS", "SHELLOPTS", "IFS", "CDPATH", "GLOBIGNORE"),
            # A shell runs the commands in its prompts and in the messages of MAILPATH.
            *("EXECIGNORE", "PROMPT_COMMAND", "PS[0-4]", "MAILPATH", "INPUTRC", "FPATH", "ZDOTDIR"),
            *("EDITOR", "VISUAL", "FCEDIT", "PAGER", "MANPAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "LESSKEY*"),
            *(
                "VIMINIT",
                "EXINIT",
                "EMACSLOADPATH",
                "TERMINFO",
                "TERMINFO_DIRS",
                "TERMCAP",
                "XDG_CONFIG_*",
                "XDG_DATA_*",
            ),
        ),
        "controls which programs a shell runs",
    ),
    DeniedVariables(
        (
            *("PYTHON*", "PERL5*", "PERLLIB", "PERL_*", "RUBYOPT", "RUBYLIB", "GEM_*", "BUNDLE_*"),
            *("NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "NODE_TLS_*", "NODE_REPL_*"),
            *("NODE_V8_COVERAGE", "ELECTRON_RUN_AS_NODE", "DENO_*", "BUN_*", "MONO_*"),
            *("JAVA_TOOL_OPTIONS", "*JAVA_OPTIONS", "JAVA_OPTS", "*_JAVA_OPTS", "JVM_OPTS", "CATALINA_OPTS"),
            *("MAVEN_OPTS", "GRADLE_OPTS", "SBT_OPTS", "JAVA_HOME", "JRE_HOME", "CLASSPATH"),
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
                "IPYTHONDIR",
                "JUPYTER_*",
            ),
            *("TCL_LIBRARY", "OCTAVE_PATH", "R_HOME", "GODEBUG"),
        ),
        "controls what a language runtime or a framework loads",
    ),
    # GTK, GLib, Qt, GStreamer, ImageMagick, SASL; the loaders of Vulkan, OpenCL, EGL, GBM, OpenGL, VA-API and VDPAU;
    # the injection libraries of CUDA, ROCm and NCCL; UCX, Open MPI and PMIx.
    DeniedVariables(
        (
            *("GTK_MODULES", "GTK_PATH", "GTK_EXE_PREFIX", "GTK_IM_MODULE_FILE", "GDK_PIXBUF_MODULE*"),
            *(
                "GIO_MODULE_DIR",
                "GIO_EXTRA_MODULES",
                "QT_PLUGIN_PATH",
                "QT_QPA_PLATFORM_PLUGIN_PATH",
                "QML*_IMPORT_PATH",
            ),
            *("GST_PLUGIN_*", "GST_REGISTRY*", "MAGICK_*", "SASL_PATH"),
            *("VK_ICD_FILENAMES", "VK_DRIVER_FILES", "VK_ADD_*", "VK_LAYER_PATH", "VK_*LAYER_PATH", "OCL_ICD_*"),
            *(
                "__EGL_VENDOR_*",
                "__EGL_EXTERNAL_*",
                "GBM_BACKENDS_PATH",
                "OPENCL_VENDOR_PATH",
                "LIBGL_DRIVERS_PATH",
                "LIBVA_DRIVERS_PATH",
            ),
            *("VDPAU_DRIVER_PATH", "CUDA_INJECTION*", "NVTX_INJECTION*", "HSA_TOOLS_LIB", "ROCP_TOOL_LIB*"),
            *("NCCL_*_PLUGIN", "RCCL_*_PLUGIN", "UCX_MODULE_DIR", "OMPI_MCA_*", "PMIX_MCA_*", "PRTE_MCA_*"),
            *("ALSA_CONFIG_*", "ALSA_PLUGIN_DIR", "LIBMYSQL_PLUGIN_DIR", "HDF5_PLUGIN_PATH", "SDL_DYNAMIC_API"),
            # The tools interface of OpenMP; the loaders of Level Zero and of Unified Runtime; XLA.
            *("OMP_TOOL_LIBRARIES", "ZE_ENABLE_ALT_DRIVERS", "UR_ADAPTERS_*"),
            *("PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH"),
        ),
        "controls which drivers or plugins a library loads",
    ),
    DeniedVariables(
        ("PIP_*", "UV_INDEX*", "CARGO_*", "RUSTC_*", "GOPROXY", "GOFLAGS", "GOENV", "GOTOOLCHAIN", "CONDA_*"),
        "controls what a package manager or a compiler installs or runs",
    ),
    # npm reads every variable that matches /^npm_config_/i, and Yarn /^yarn_/i.
    DeniedVariables(("NPM_CONFIG_*", "YARN_*"), "controls what a package manager installs", is_any_case=True),
    DeniedVariables(
        (
            *("GIT_*", "HGRCPATH", "SVN_*", "SSH_*", "RSYNC_*", "SUDO_*", "MAKEFLAGS", "ANSIBLE_*", "SYSTEMD_*"),
            *("DOCKER_*", "BUILDAH_*", "_LIBCONTAINER_*", "_CONTAINERS_*", "PSQL_*", "PGSYSCONFDIR", "PGSERVICEFILE"),
        ),
        "controls which programs another program runs",
    ),
    DeniedVariables(
        (
            *("OPENSSL_*", "SSL_*", "SSLKEYLOGFILE", "CURL_CA_BUNDLE", "CURL_HOME", "REQUESTS_CA_BUNDLE"),
            *("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "GRPC_PROXY_EXP", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "BOTO_CONFIG"),
            *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONTAINER_*", "AWS_ENDPOINT_*", "GOOGLE_APPLICATION_*"),
            *("KRB5_*", "KRB5CCNAME"),
        ),
        "controls to which hosts a program connects, or which it trusts",
    ),
    # urllib.request.getproxies_environment reads every variable that ends with "_proxy" in lower case.
    DeniedVariables(("*_PROXY",), "controls to which hosts a program connects", is_any_case=True),
    # The kubelet sets them for services (Kubernetes documentation, "Accessing the Service").
    DeniedVariables(
        ("KUBERNETES_*", "KUBECONFIG", "*_SERVICE_HOST", "*_SERVICE_PORT", "*_SERVICE_PORT_*", "*_PORT_*_TCP*"),
        "controls with which services of the cluster a program communicates",
    ),
    DeniedVariables(
        ("*_PORT_*_UDP*", "*_PORT_*_SCTP*", "HOSTNAME", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"),
        "is set by the kubelet, the container runtime or the service manager",
    ),
    # The container runtimes of NVIDIA, Habana, Ascend and Moore Threads.
    DeniedVariables(
        (
            *("NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_REQUIRE_*", "NVIDIA_DISABLE_REQUIRE", "NVIDIA_MIG_*_DEVICES"),
            *("NVIDIA_IMEX_CHANNELS", "NVIDIA_GDS", "NVIDIA_MOFED", "NVIDIA_GDRCOPY", "NVIDIA_NVSWITCH"),
            # For an image with CUDA_VERSION and without NVIDIA_REQUIRE_CUDA, the runtime adds all GPUs by default.
            "CUDA_VERSION",
            *("HABANA_RUNTIME_*", "ASCEND_RUNTIME_*", "ASCEND_ALLOW_*", "ASCEND_VNPU_*"),
            "MTHREADS_DRIVER_CAPABILITIES",
        ),
        "controls what a container runtime adds to the container",
    ),
)
"""The denied variables. Every other variable is allowed."""

_CARDS = range(16)
RUNTIME_DEVICES = {
    "NVIDIA_VISIBLE_DEVICES": (tuple(f"/dev/nvidia{number}" for number in _CARDS),),
    "AMD_VISIBLE_DEVICES": (("/dev/kfd", *(f"/dev/dri/renderD{128 + number}" for number in _CARDS)),),
    # Older drivers have nodes of their own.
    "HABANA_VISIBLE_DEVICES": (
        tuple(f"/dev/accel/accel{number}" for number in _CARDS),
        tuple(f"/dev/hl{number}" for number in _CARDS),
    ),
    "ASCEND_VISIBLE_DEVICES": (tuple(f"/dev/davinci{number}" for number in _CARDS),),
    "AWS_NEURON_VISIBLE_DEVICES": (tuple(f"/dev/neuron{number}" for number in _CARDS),),
    "MTHREADS_VISIBLE_DEVICES": (tuple(f"/dev/mtgpu.{number}" for number in _CARDS),),
}
"""Variables that name devices which a container runtime adds to a container, and the device nodes of 16 such devices.

The runtime adds the devices of the value whether or not the container got them from the device plugin, so a policy
must allow the device nodes of one alternative. The sources are ``cuda_image.go`` of the NVIDIA Container Toolkit,
``oci.go`` of the AMD Container Toolkit, ``main.go`` of habana-container-runtime, the hook of the Ascend Docker Runtime,
and the documentation of the Neuron OCI hooks and of the Moore Threads container toolkit.
"""

_DEVICE_VARIABLES = re.compile(r".*_VISIBLE_DEVICES\Z")
"""Variables from which container runtimes take the devices of a container (NVIDIA, AMD, Habana, Ascend)."""
_DEVICE_WORDS = frozenset({"all", "void", "none"})
_CDI_NAME = re.compile(r"[^=/]+/[^=/]+=")
_DEVICE_SEPARATORS = re.compile(r"[\s,=:/]+")


@lru_cache(maxsize=4096)
def denied_variable_effect(name: str) -> str:
    """Return what a denied variable does, as a clause that follows "it"; an empty string if the name is allowed."""
    return next(
        (
            variables.effect
            for variables in DENIED_VARIABLES
            if any(
                fnmatch.fnmatchcase(name.upper() if variables.is_any_case else name, pattern)
                for pattern in variables.names
            )
        ),
        "",
    )


def is_value_checked(name: str) -> bool:
    """Return whether values of a variable can be denied."""
    return _DEVICE_VARIABLES.match(name) is not None


def denied_value_effect(name: str, value: str) -> str:
    """Return what a denied value of a variable does, as a clause that follows "it"; an empty string if it is allowed.

    A value is denied if it selects all devices or none, because the container would not get the devices of its request,
    or if it has the name of a CDI device, which the NVIDIA runtime adds to the container.
    """
    if not is_value_checked(name):
        return ""
    word = next((word for word in _DEVICE_SEPARATORS.split(value.lower()) if word in _DEVICE_WORDS), "")
    if word:
        return f"selects the devices of the container by the word {word!r}, regardless of its request"
    is_cdi = any(_CDI_NAME.match(item.strip()) for item in value.split(","))
    return "selects a CDI device; write it into 'allocate.cdiDevices', to which 'cdi.allow' applies" if is_cdi else ""
