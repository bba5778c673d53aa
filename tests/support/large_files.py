"""Configuration files of up to 1 MiB that are expensive, each by other means."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import MappingProxyType

from msgspec import Struct

MIB = 1 << 20
HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
_NUMBERS = range(MIB)
_DEVICES = "    devices: [{glob: /dev/x}]\n"


class File(Struct, frozen=True):
    """A file that repeats parts: what is before and after them, and the parts, which are as many as needed."""

    head: str
    parts: Iterable[str]
    tail: str = ""

    def fill(self, size: int = MIB, max_parts: int = MIB) -> str:
        """Return the file with as many parts as fit into a size."""
        taken, used = [self.head], len(self.head) + len(self.tail)
        for part in islice(self.parts, max_parts):
            used += len(part)
            if used > size:
                break
            taken.append(part)
        return "".join((*taken, self.tail))


def small_resources() -> File:
    return File(HEAD + "resources:\n", (f"  a.io/r{n}: {{devices: [{{glob: /dev/x{n}}}]}}\n" for n in _NUMBERS))


def globs() -> File:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob:\n"
    return File(head, (f"      - /dev/x{n}-*\n" for n in _NUMBERS))


def alternatives() -> File:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob:\n"
    return File(head, (f"      - /dev/x{n}-{{0..999}}\n" for n in _NUMBERS))


def sources() -> File:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n"
    return File(head, (f"    - {{glob: /dev/x{n}, id: x}}\n" for n in _NUMBERS))


def name_globs() -> File:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob: /dev/x*\n      where:\n        name:\n"
    return File(head, (f"        - x{n}-{{0..999}}\n" for n in _NUMBERS))


def environment() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      env:\n"
    return File(head, (f"        A{n}: b\n" for n in _NUMBERS))


def references() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + '    allocate:\n      env:\n        A: "'
    return File(head, ("${name}" for _ in _NUMBERS), '"\n')


def references_in_block() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      env:\n        A: |\n"
    return File(head, ("          ${name}\n" for _ in _NUMBERS))


def text() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + '    allocate:\n      annotations:\n        a.io/b: "'
    return File(head, ("x" * 64 for _ in _NUMBERS), '"\n')


def defaults_in_every_resource() -> File:
    head = HEAD + "defaults:\n  allocate:\n    env:\n" + "".join(f"      A{n}: b\n" for n in range(20_000))
    return File(head + "resources:\n", (f"  a.io/r{n}: {{devices: [{{glob: /dev/x{n}}}]}}\n" for n in _NUMBERS))


def probes() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    health:\n      probes:\n"
    return File(head, ("      - open: {}\n" for _ in _NUMBERS))


def regexes() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    health:\n      probes:\n"
    return File(head, (f"      - file: {{path: /sys/x, matches: 'a{n}(b{{50}}){{20}}'}}\n" for n in _NUMBERS))


def long_regex() -> File:
    head = (
        HEAD
        + "resources:\n  a.io/x:\n"
        + _DEVICES
        + "    health:\n      probes:\n      - file: {path: /sys/x, matches: '"
    )
    return File(head, (f"(a{n}|b)" for n in _NUMBERS), "'}\n")


def attribute_chain(length: int) -> File:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob: /dev/x*\n      where: {a0: x}\n      attributes:\n"
    links = (f"        a{n}: {{path: '/sys/x/${{a{n + 1}}}'}}\n" for n in range(length))
    return File(head, links, f"        a{length}: {{path: /sys/x}}\n")


def attributes() -> File:
    return attribute_chain(MIB)


def wrong_keys() -> File:
    return File(HEAD + "resources: {}\n", (f"wrong{n}: 1\n" for n in _NUMBERS))


def wrong_values() -> File:
    return File(HEAD + "resources:\n", (f"  a.io/r{n}: {{devices: 1, replica: 0}}\n" for n in _NUMBERS))


def wrong_templates() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      env:\n"
    return File(head, (f"        A{n}: '${{x{n}}}'\n" for n in _NUMBERS))


def wrong_names() -> File:
    return File(HEAD + "resources:\n", (f"  r{n}: {{devices: [{{glob: dev}}]}}\n" for n in _NUMBERS))


def duplicate_keys() -> File:
    return File(HEAD + "resources: {}\n", ("a: 1\n" for _ in _NUMBERS))


def deep() -> File:
    return File(HEAD + "resources: ", ("[" for _ in _NUMBERS))


def deep_block() -> File:
    return File(HEAD + "resources:\n", (" " * n + "a:\n" for n in range(1, 1400)))


def aliases() -> File:
    head = HEAD + "x: &a [" + "1," * 100 + "]\nresources: {}\ny:\n"
    return File(head, ("- *a\n" for _ in _NUMBERS))


def resource_aliases() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    aliases:\n"
    return File(head, (f"    - a.io/y{n}\n" for n in _NUMBERS))


def flow_scalars() -> File:
    return File(HEAD + "resources: {}\nx: [", ("1," for _ in _NUMBERS), "]\n")


def mounts() -> File:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      mounts:\n"
    return File(head, (f"      - {{hostPath: /x{n}, containerPath: /x{n}}}\n" for n in _NUMBERS))


def nodes() -> File:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob: /dev/x\n      with:\n"
    return File(head, (f"      - /dev/y{n}\n" for n in _NUMBERS))


def comments() -> File:
    return File(HEAD + "resources: {}\n", ("#\n" for _ in _NUMBERS))


def tokens() -> File:
    body = _DEVICES + "    tokens: 10000\n"
    return File(HEAD + "resources:\n", (f"  a.io/r{n}:\n{body}" for n in _NUMBERS))


FILES: Mapping[str, Callable[[], File]] = MappingProxyType(
    {
        made.__name__: made
        for made in (
            small_resources,
            globs,
            alternatives,
            sources,
            name_globs,
            environment,
            references,
            references_in_block,
            text,
            defaults_in_every_resource,
            probes,
            regexes,
            long_regex,
            attributes,
            wrong_keys,
            wrong_values,
            wrong_templates,
            wrong_names,
            duplicate_keys,
            deep,
            deep_block,
            aliases,
            resource_aliases,
            flow_scalars,
            mounts,
            nodes,
            comments,
            tokens,
        )
    }
)
"""Every file by its name."""
