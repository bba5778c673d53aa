"""Reading a histogram of the kubelet."""

from tests.cluster.kubelet_latency import read_histogram

NAME = "kubelet_device_plugin_alloc_duration_seconds"
PAGE = f"""\
# TYPE {NAME} histogram
{NAME}_bucket{{resource_name="test.example/thing",le="0.005"}} 19
{NAME}_sum{{resource_name="test.example/thing"}} 0.025
{NAME}_count{{resource_name="test.example/thing"}} 20
{NAME}_sum{{resource_name="test.example/other"}} 7e-05
{NAME}_count{{resource_name="test.example/other"}} 1
"""


def test_sum_and_count_of_a_resource_are_read() -> None:
    assert read_histogram(PAGE, NAME, "test.example/thing") == (0.025, 20)
    assert read_histogram(PAGE, NAME, "test.example/other") == (0.00007, 1)


def test_histogram_of_an_unknown_resource_is_empty() -> None:
    assert read_histogram(PAGE, NAME, "test.example/thin") == (0, 0)
