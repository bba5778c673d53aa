"""Device IDs: DNS labels that depend only on the name of the resource and the key of the device.

An ID must not depend on other devices, or it would change under running pods. It is the key as a label, followed by a
short hash of resource and key, because two keys can give the same label. The hash is omitted if the key is the name of
the device node, which is unique on the node. The suffixes ``-r<n>`` (replicas), ``-s<n>`` (slices) and ``-t<n>``
(tokens) and suffixes that look like a hash are reserved, so an ID is never mistaken for that of another kind.
"""

import base64
import hashlib
import re

MAX_LABEL_LENGTH = 48
"""The length to which a label is cut: with ``-<hash>`` and ``-r<six digits>`` it has 63 characters."""

_HASH_LENGTH = 6
_OTHER = re.compile(r"[^a-z0-9]+")
_PLAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_VERBATIM = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:]*[A-Za-z0-9])?\Z")
_RESERVED_END = re.compile(r"-(?:[rst]\d+|[a-z2-7]{6})\Z")
_SHARE_SUFFIX = re.compile(r"-[rs]\d+\Z")
_LIKE_A_SUFFIX = re.compile(r"[rst]\d+\Z")


def device_id(resource: str, key: str, *, is_node_name: bool) -> str:
    """Return the ID of a device.

    ``is_node_name`` means that the key is the path of the only device node without ``/dev/``, and that no other
    resource may use that node.
    """
    if is_node_name and _is_plain(key):
        return key
    return f"{_label(key)}-{_hash(resource, key)}"


def verbatim_error(key: str) -> str:
    """Return why a string cannot be a verbatim ID, or an empty string.

    The kubelet accepts any string; CDI names and the suffixes of replicas and slices do not (kubelet-contract.md §8).
    """
    if len(key) > MAX_LABEL_LENGTH:
        return f"has {len(key)} characters, at most {MAX_LABEL_LENGTH} are allowed"
    if not _VERBATIM.match(key):
        return "must consist of letters, digits, '-', '_', '.' and ':', with a letter or digit at both ends"
    return (
        "ends with a suffix that genplug reserves for replicas, slices, tokens and hashes"
        if _RESERVED_END.search(key)
        else ""
    )


def replica_id(device: str, number: int) -> str:
    """Return the ID of a replica of a device; ``number`` counts from 0."""
    return f"{device}-r{number}"


def slice_id(device: str, number: int) -> str:
    """Return the ID of a slice of a device; ``number`` counts from 0 for each device."""
    return f"{device}-s{number}"


def device_of_grant(grant: str) -> str:
    """Return the ID of the device to which a replica or slice belongs; any other ID is returned unchanged."""
    return _SHARE_SUFFIX.sub("", grant)


def token_ids(resource: str, count: int) -> tuple[str, ...]:
    """Return the IDs of the tokens of a pool, in order."""
    base = f"{_label(resource)}-{_hash(resource, '')}"
    return tuple(f"{base}-t{number}" for number in range(count))


def _is_plain(key: str) -> bool:
    return len(key) <= MAX_LABEL_LENGTH and _PLAIN.match(key) is not None and _RESERVED_END.search(key) is None


def _label(text: str) -> str:
    return _OTHER.sub("-", text.lower()).strip("-")[:MAX_LABEL_LENGTH].strip("-") or "device"


def _hash(resource: str, key: str) -> str:
    digest = hashlib.blake2b(f"{resource}\0{key}".encode(errors="surrogateescape"), digest_size=20).digest()
    letters = base64.b32encode(digest).decode().lower()
    hashes = (letters[start : start + _HASH_LENGTH] for start in range(len(letters) - _HASH_LENGTH))
    # Skip a hash that looks like the suffix of a replica, slice or token (one in 50 000).
    return next(candidate for candidate in hashes if _LIKE_A_SUFFIX.match(candidate) is None)
