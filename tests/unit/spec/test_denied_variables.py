"""Environment variables that the default policy denies, by their names and by their values."""

import pytest

from genplug.spec.denied_variables import denied_value_effect, denied_variable_effect


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("LD_PRELOAD", "controls the dynamic loader or the C library"),
        ("GIT_SSH", "controls which programs another program runs"),
        ("HOSTNAME", "is set by the kubelet, the container runtime or the service manager"),
        # The dynamic loader reads its variables in upper case only.
        ("ld_preload", ""),
        ("git_ssh", ""),
        # npm, Yarn and urllib read theirs in any case.
        ("npm_config_prefix", "controls what a package manager installs"),
        ("NPM_CONFIG_PREFIX", "controls what a package manager installs"),
        ("Yarn_Registry", "controls what a package manager installs"),
        ("https_proxy", "controls to which hosts a program connects"),
        ("HTTPS_PROXY", "controls to which hosts a program connects"),
        ("DEVICES", ""),
        ("", ""),
    ],
)
def test_name_of_a_denied_variable_has_its_effect(name: str, effect: str) -> None:
    assert denied_variable_effect(name) == effect


CDI = "selects a CDI device; write it into 'allocate.cdiDevices', to which 'cdi.allow' applies"


@pytest.mark.parametrize(
    ("name", "value", "effect"),
    [
        ("NVIDIA_VISIBLE_DEVICES", "GPU-1,GPU-2", ""),
        ("NVIDIA_VISIBLE_DEVICES", "", ""),
        ("NVIDIA_VISIBLE_DEVICES", "overall", ""),
        (
            "NVIDIA_VISIBLE_DEVICES",
            "0, ALL",
            "selects the devices of the container by the word 'all', regardless of its request",
        ),
        (
            "MY_VISIBLE_DEVICES",
            "mig:void=none",
            "selects the devices of the container by the word 'void', regardless of its request",
        ),
        ("NVIDIA_VISIBLE_DEVICES", "nvidia.com/gpu=0", CDI),
        ("NVIDIA_VISIBLE_DEVICES", "GPU-1, nvidia.com/gpu=0", CDI),
        # The first item is not a CDI name, and the value as a whole would look like one.
        ("NVIDIA_VISIBLE_DEVICES", "/a,b/c=0", CDI),
        ("NVIDIA_VISIBLE_DEVICES", "/a/b=0", ""),
        ("DEVICES", "all", ""),
        ("NVIDIA_VISIBLE_DEVICES_X", "all", ""),
    ],
)
def test_value_that_selects_devices_has_its_effect(name: str, value: str, effect: str) -> None:
    assert denied_value_effect(name, value) == effect
