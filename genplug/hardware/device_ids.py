"""IDs of devices: DNS labels that depend on the resource's name and the device's key alone.

An ID must not depend on which other devices are present, or it would move under running pods. It is the key made into
a label; a short hash over resource and key follows it wherever two keys could give one label. The hash is left out
only for the plain case, where the key is the very name of the node, which one device of the node can have.
No ID is a prefix of another kind: ``-r<n>`` (replicas), ``-s<n>`` (slices) and ``-t<n>`` (tokens) end no device's ID,
and what looks like our hash ends only a hashed one.
"""

import base64
import hashlib
import re

MAX_LETTERS = 48
"""Where a label is cut: with ``-<hash>`` and ``-r<six digits>`` it has 63 characters."""

_HASH_LETTERS = 6
_OTHER = re.compile(r"[^a-z0-9]+")
_PLAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_VERBATIM = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:]*[A-Za-z0-9])?\Z")
_RESERVED_END = re.compile(r"-(?:[rst]\d+|[a-z2-7]{6})\Z")
_LIKE_A_SUFFIX = re.compile(r"[rst]\d+\Z")


def device_id(resource: str, key: str, *, is_node_name: bool) -> str:
    """Return the ID of a device.

    ``is_node_name`` says that the key is the path of the device's one node without ``/dev/`` and that no other
    resource may have that node.
    """
    if is_node_name and _is_plain(key):
        return key
    return f"{_label(key)}-{_hash(resource, key)}"


def verbatim_error(key: str) -> str:
    """Say why a text cannot be an ID as it is; empty if it can.

    The kubelet takes any text; CDI, replicas and slices of ours do not (contract 8: names).
    """
    if len(key) > MAX_LETTERS:
        return f"has {len(key)} characters, {MAX_LETTERS} are allowed"
    if not _VERBATIM.match(key):
        return "may hold letters, digits, '-', '_', '.' and ':', with a letter or digit at both ends"
    return "ends as one of genplug's own does" if _RESERVED_END.search(key) else ""


def replica_id(device: str, number: int) -> str:
    """Return the ID of one of several grants of a device; ``number`` counts from 0."""
    return f"{device}-r{number}"


def slice_id(device: str, number: int) -> str:
    """Return the ID of a slice of a device; ``number`` counts from 0 in the device."""
    return f"{device}-s{number}"


def token_ids(resource: str, count: int) -> tuple[str, ...]:
    """Return the IDs of a pool's anonymous grants, in order."""
    base = f"{_label(resource)}-{_hash(resource, '')}"
    return tuple(f"{base}-t{number}" for number in range(count))


def _is_plain(key: str) -> bool:
    return len(key) <= MAX_LETTERS and _PLAIN.match(key) is not None and _RESERVED_END.search(key) is None


def _label(text: str) -> str:
    return _OTHER.sub("-", text.lower()).strip("-")[:MAX_LETTERS].strip("-") or "device"


def _hash(resource: str, key: str) -> str:
    digest = hashlib.blake2b(f"{resource}\0{key}".encode(errors="surrogateescape"), digest_size=20).digest()
    letters = base64.b32encode(digest).decode().lower()
    hashes = (letters[start : start + _HASH_LETTERS] for start in range(len(letters) - _HASH_LETTERS))
    # One hash in 50 000 is r, s or t with digits: it would read as the end of a replica's or a token's ID.
    return next(one for one in hashes if _LIKE_A_SUFFIX.match(one) is None)
