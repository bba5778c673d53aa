"""The status of a driver with published resources and a prepared claim."""

from genplug.observe.dra_status import ClaimedDevice, ClaimStatus, DeviceNote, DraStatus, PublishedStatus

_HOLDER = "the pod default/viewer"
DRA = DraStatus(
    driver="genplug.io",
    is_registered=True,
    registered_at=1_795_799_540.2,
    error="",
    phase="waiting to retry",
    publish_error="the API server at 10.0.0.1:443 did not answer 'update resourceslices/a' within 15 s",
    retry_seconds=3.2,
    keeps_taints=True,
    resources=(
        PublishedStatus(
            resource="example.com/gpu",
            pool="node-1/example.com/gpu",
            slices=1,
            devices=3,
            tainted=1,
            left_out=(
                DeviceNote("gpu3", "publish.attributes.model has no value"),
                DeviceNote("gpu4", f"{_HOLDER} uses it by the device plugin API"),
            ),
            withheld=(DeviceNote("gpu4", _HOLDER),),
        ),
    ),
    claims=(
        ClaimStatus(
            "default",
            "training",
            "8f3b1c7e-0000-4000-8000-000000000001",
            (ClaimedDevice("gpu", "example.com/gpu", "gpu0"),),
            ("trainer",),
        ),
    ),
    damaged=1,
)
