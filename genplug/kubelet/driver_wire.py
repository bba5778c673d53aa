"""Encode and decode the messages of drivers of Dynamic Resource Allocation, as values."""

from collections.abc import Mapping, Sequence

from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.kubelet.api import genplug_pluginregistration_v1_pb2 as registration_pb
from genplug.kubelet.api.services import DRA_PLUGIN_TYPE, DRA_PLUGIN_VERSION


def decode_claims(request: bytes) -> tuple[ClaimReference, ...]:
    """Return the claims of a ``NodePrepareResourcesRequest`` or ``NodeUnprepareResourcesRequest``, each UID once.

    Both requests have the same fields.

    Raises:
        google.protobuf.message.DecodeError: the bytes are not the message.
    """
    claims = pb.NodePrepareResourcesRequest.FromString(request).claims
    found = (ClaimReference(claim.namespace, claim.name, claim.uid) for claim in claims)
    return tuple({claim.uid: claim for claim in found}.values())


def encode_prepared(answers: Mapping[str, Sequence[ClaimDevice] | str]) -> bytes:
    """Return a ``NodePrepareResourcesResponse``: by UID, the devices of a claim, or the text of its error."""
    response = pb.NodePrepareResourcesResponse()
    for uid, answer in answers.items():
        result = response.claims[uid]
        if isinstance(answer, str):
            result.error = answer
            continue
        for device in answer:
            result.devices.add(
                request_names=device.requests,
                pool_name=device.pool,
                device_name=device.device,
                cdi_device_ids=device.cdi_devices,
            )
    return response.SerializeToString(deterministic=True)


def encode_unprepared(answers: Mapping[str, str]) -> bytes:
    """Return a ``NodeUnprepareResourcesResponse``: by UID, the text of an error, empty for a success."""
    response = pb.NodeUnprepareResourcesResponse()
    for uid, error in answers.items():
        response.claims[uid].error = error
    return response.SerializeToString(deterministic=True)


def encode_info(driver: str, endpoint: str) -> bytes:
    """Return the ``PluginInfo`` of a driver whose service is on the socket with the path ``endpoint``."""
    info = registration_pb.PluginInfo(
        type=DRA_PLUGIN_TYPE, name=driver, endpoint=endpoint, supported_versions=[DRA_PLUGIN_VERSION]
    )
    return info.SerializeToString()


def decode_status(request: bytes) -> str | None:
    """Return the error of a ``RegistrationStatus``; None if the driver is registered.

    Raises:
        google.protobuf.message.DecodeError: the bytes are not the message.
    """
    status = registration_pb.RegistrationStatus.FromString(request)
    return None if status.plugin_registered else status.error or "the kubelet gave no reason"
