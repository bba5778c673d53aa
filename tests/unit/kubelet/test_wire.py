"""The encoding of device lists: the bytes are those of protobuf."""

from hypothesis import given
from hypothesis import strategies as st

from genplug.allocation.results import ListedDevice
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.wire import encode_list

texts = st.text(min_size=1, max_size=8) | st.integers(100, 20_000).map(lambda size: "x" * size)
devices = st.builds(
    ListedDevice,
    texts,
    st.booleans(),
    st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple) | st.just(tuple(range(100))),
)


def encode_by_protobuf(listed: list[ListedDevice]) -> bytes:
    made = [pb.Device(ID=device.id, health="Healthy" if device.healthy else "Unhealthy") for device in listed]
    for message, device in zip(made, listed, strict=True):
        for node in device.numa:
            message.topology.nodes.add(ID=node)
    return pb.ListAndWatchResponse(devices=made).SerializeToString()


@given(st.lists(devices, max_size=4))
def test_list_is_encoded_as_by_protobuf(listed: list[ListedDevice]) -> None:
    encoded = encode_list(listed)
    assert encoded.message == encode_by_protobuf(listed)
    assert len(encoded.parts) == len(listed)
    assert encoded.healthy == sum(device.healthy for device in listed)


def test_sizes_around_the_limits_of_their_encoding_are_those_of_protobuf() -> None:
    for size in (*range(90, 140), *range(16_340, 16_390)):
        listed = [ListedDevice("x" * size, healthy=size % 2 == 0, numa=(0,))]
        assert encode_list(listed).message == encode_by_protobuf(listed)
