"""Which container has which devices: single rules. ``test_histories`` plays random days."""

from msgspec.structs import replace

from genplug.audit.assignments import Assignments, Began, Change, ContainerUse, Continued, Ended, ReportTimes, Seen
from genplug.audit.records import Assignment, Container, EndReason, Hardware
from genplug.spec.limits import MAX_AUDIT_IDS
from tests.support.work import count_lines

RESOURCE, OTHER_RESOURCE = "example.com/x", "example.com/other"
A, B = Container("default", "a", "main"), Container("default", "b", "main")


def allocated(key: str, time: float, *ids: str) -> Assignment:
    return Assignment(key, RESOURCE, ids or ("x0",), allocated_at=time)


def has(container: Container, *ids: str) -> ContainerUse:
    return ContainerUse(container, RESOURCE, frozenset(ids or ("x0",)))


def build(use: ContainerUse) -> Assignment:
    return Assignment(f"new-{use.container.pod}-{min(use.ids)}", use.resource, tuple(sorted(use.ids)))


def with_another_resource(assignment: Assignment) -> Assignment:
    return replace(assignment, key=f"{assignment.key}-other", resource=OTHER_RESOURCE)


def report(
    assignments: Assignments, time: float, *uses: ContainerUse, may_end: bool = True
) -> tuple[Assignments, list[Change]]:
    after, changes = assignments.after_report(uses, ReportTimes(time, time + 0.5), build, may_end=may_end)
    return after, list(changes)


def allocate(assignments: Assignments, assignment: Assignment) -> Assignments:
    after, _ = assignments.after_allocation(assignment, assignment.allocated_at or 0.0)
    return after


def test_report_connects_an_allocation_with_its_container() -> None:
    assignments, changes = Assignments().after_allocation(allocated("k", 1), 1)
    assert changes == (Began(allocated("k", 1)),)
    assert assignments.has_unseen
    assignments, seen = report(assignments, 2, has(A))
    assert not assignments.has_unseen
    expected = replace(allocated("k", 1), container=A, first_seen=2, last_seen=2)
    assert seen == [Seen(expected)]
    assert assignments.current == (expected,)
    _, again = report(assignments, 3, has(A))
    assert again == []


def test_report_that_was_requested_before_an_allocation_does_not_concern_it() -> None:
    assignments, _ = report(Assignments(), 1, has(A))
    assignments = allocate(assignments, allocated("k", 5))
    for time in (4, 5):
        # The report has the container that had the device before.
        assignments, changes = report(assignments, time, has(A))
        assert changes == []
    assignments, changes = report(assignments, 6, has(B))
    [seen] = changes
    assert isinstance(seen, Seen)
    assert seen.assignment.container == B


def test_container_without_an_allocation_is_seen_from_its_first_report_on() -> None:
    assignments, changes = report(Assignments(), 1, has(A))
    first = Assignment("new-a-x0", RESOURCE, ("x0",), container=A, first_seen=1, last_seen=1)
    assert changes == [Seen(first)]
    assignments, changes = report(assignments, 2, has(A))
    assert changes == []
    assert assignments.current == (replace(first, last_seen=2),)


def test_devices_of_another_resource_with_the_same_ids_are_other_devices() -> None:
    other = with_another_resource(allocated("k", 1))
    assignments = allocate(allocate(Assignments(), other), allocated("k", 2))
    assert assignments.current == (other, allocated("k", 2))
    assert assignments.resources == {RESOURCE, OTHER_RESOURCE}
    assignments, _ = report(assignments, 3, has(A))
    assert [assignment.container for assignment in assignments.current] == [None, A]


def test_report_completes_each_assignment_that_it_contains() -> None:
    ambiguous = replace(allocated("k0", 1), is_ambiguous=True)
    assignments, _ = Assignments().after_recovery([ambiguous], 2, is_complete=True)
    assignments = allocate(assignments, allocated("k1", 2, "x1"))
    assignments, _ = report(assignments, 3, has(A, "x0", "x1"))
    assert [assignment.key for assignment in assignments.current] == ["k1", "new-a-x0"]
    assignments = allocate(allocate(assignments, allocated("k2", 4, "x2")), allocated("k3", 4, "x3"))
    assignments, changes = report(assignments, 5, has(A, "x0", "x1"), has(B, "x2", "x3"))
    assert [change.assignment.key for change in changes] == ["k2", "k3"]
    assert [(assignment.key, assignment.last_seen) for assignment in assignments.current] == [
        ("k1", 5),
        ("new-a-x0", 5),
        ("k2", 5),
        ("k3", 5),
    ]


def test_all_containers_were_seen_at_the_time_of_the_oldest_report() -> None:
    assert Assignments().all_seen_at is None
    assignments, _ = report(Assignments(), 1, has(A), has(B, "x1"))
    assignments = allocate(assignments, allocated("k", 1, "x2"))
    assignments, _ = report(assignments, 2, has(B, "x1"))
    assert assignments.all_seen_at == 1


def test_hardware_is_added_to_its_assignment_only() -> None:
    assignments, _ = report(allocate(Assignments(), allocated("k0", 1)), 2, has(A))
    assignments = allocate(assignments, allocated("k1", 2, "x1"))
    hardware = (Hardware("x0", ("/dev/x0",)),)
    k0, k1 = assignments.current
    assert assignments.with_hardware("k0", hardware, 3).current == (
        replace(k0, hardware=hardware, hardware_omitted=3),
        k1,
    )


def test_allocation_ends_the_earlier_assignments_of_its_devices_from_the_oldest_on() -> None:
    names = [f"x{number}" for number in range(9)]
    containers = [Container("default", name, "main") for name in names]
    # A report can have a device in two containers.
    uses = [has(container, name, "shared") for container, name in zip(containers, names, strict=True)]
    assignments, _ = report(Assignments(), 1, *uses)
    for ids, ended in ((("x8",), names[8:]), (("x0", "shared"), names[:8])):
        assignments, changes = assignments.after_allocation(allocated(f"k-{ids[0]}", 5, *ids), 5)
        *ends, _ = changes
        assert [change.assignment.container.pod for change in ends if change.assignment.container] == ended
    assert [assignment.key for assignment in assignments.current] == ["k-x8", "k-x0"]
    _, changes = assignments.after_allocation(allocated("k", 6, "shared"), 6)
    assert [change.assignment.key for change in changes] == ["k-x0", "k"]


def test_work_of_an_allocation_does_not_depend_on_the_other_assignments() -> None:
    def count(number: int) -> int:
        assignments = Assignments()
        for each in range(number):
            assignments = allocate(assignments, allocated(f"k{each}", 1, f"x{each}"))
        return count_lines(lambda: assignments.after_allocation(allocated("k", 2, "x0"), 2))[0]

    assert count(1000) == count(10)


def test_allocation_ends_the_earlier_assignment_of_its_device() -> None:
    assignments, _ = report(Assignments(), 1, has(A))
    _, changes = assignments.after_allocation(allocated("k", 5), 5)
    ended, began = changes
    assert isinstance(ended, Ended)
    assert (ended.assignment.container, ended.ended_by, ended.reason) == (A, 5, EndReason.ALLOCATED_AGAIN)
    assert isinstance(began, Began)


def test_assignment_ends_after_two_reports_by_the_time_of_the_first() -> None:
    assignments, _ = report(allocate(Assignments(), allocated("k", 1)), 2, has(A))
    assignments, changes = report(assignments, 3)
    assert changes == []
    assignments, [ended] = report(assignments, 4)
    assert isinstance(ended, Ended)
    # The pod can have ended between the request and the response.
    assert (ended.assignment.last_seen, ended.ended_by, ended.reason) == (2, 3.5, EndReason.POD_ENDED)
    assert assignments.current == ()


def test_report_without_a_container_does_not_count_before_it_returns() -> None:
    assignments, _ = report(allocate(Assignments(), allocated("k", 1)), 2, has(A))
    assignments, _ = report(assignments, 3)
    assignments, _ = report(assignments, 4, has(A))
    assignments, changes = report(assignments, 5)
    assert changes == []
    assert assignments.current[0].last_seen == 4


def test_kubelet_that_has_restarted_ends_no_assignment() -> None:
    assignments, _ = report(allocate(Assignments(), allocated("k", 1)), 2, has(A))
    for time in range(3, 9):
        assignments, changes = report(assignments, time, may_end=False)
        assert changes == []
    # Only reports of a kubelet that knows its pods count.
    after, changes = report(assignments, 9)
    assert changes == []
    _, changes = report(after, 10)
    assert [type(change) for change in changes] == [Ended]
    # Another container with the device is proof of the end nevertheless.
    _, changes = report(assignments, 9, has(B), may_end=False)
    ended, seen = changes
    assert isinstance(ended, Ended)
    assert ended.assignment.container == A
    assert isinstance(seen, Seen)
    assert seen.assignment.container == B


def test_allocation_without_a_container_ends_as_never_assigned() -> None:
    assignments = allocate(Assignments(), allocated("k", 1))
    assignments, _ = report(assignments, 2)
    _, [ended] = report(assignments, 3)
    assert isinstance(ended, Ended)
    assert ended.reason is EndReason.NEVER_ASSIGNED


def test_recovered_assignment_that_the_first_reports_lack_ended_without_the_agent() -> None:
    recovered = replace(allocated("k", 1), container=A, first_seen=2, last_seen=3)
    assignments, changes = Assignments().after_recovery([recovered], 10, is_complete=True)
    assert changes == ()
    assignments, _ = report(assignments, 11)
    _, [ended] = report(assignments, 12)
    assert isinstance(ended, Ended)
    assert (ended.assignment.last_seen, ended.ended_by, ended.reason) == (3, 11.5, EndReason.AGENT_NOT_RUNNING)


def test_confirmed_assignment_of_an_earlier_process_ends_like_any_other() -> None:
    recovered = replace(allocated("k", 1), container=A, first_seen=2, last_seen=3)
    assignments, _ = Assignments().after_recovery([recovered], 10, is_complete=True)
    assignments, changes = report(assignments, 11, has(A))
    assert changes == []
    assignments, _ = report(assignments, 12)
    _, [ended] = report(assignments, 13)
    assert isinstance(ended, Ended)
    assert ended.reason is EndReason.POD_ENDED


def test_container_is_not_connected_with_an_allocation_before_a_crash() -> None:
    ambiguous = replace(allocated("k", 1), is_ambiguous=True)
    for is_complete, continued, reasons in (
        (True, (), []),
        (False, (Continued(ambiguous),), [EndReason.NOT_IDENTIFIED]),
    ):
        assignments, recovery = Assignments().after_recovery([allocated("k", 1)], 10, is_complete=is_complete)
        assert recovery == continued
        assignments, changes = report(assignments, 11, has(A))
        assert [change.reason for change in changes if isinstance(change, Ended)] == reasons
        [assignment] = assignments.current
        assert assignment.allocated_at == (1 if is_complete else None)


def test_recovered_assignment_ended_when_its_devices_were_allocated_again() -> None:
    recovered = replace(allocated("k", 1, "x0", "x1"), container=A, first_seen=2, last_seen=3)
    other = with_another_resource(recovered)
    assignments = allocate(allocate(Assignments(), allocated("k1", 6, "x1")), allocated("k0", 5))
    assignments, changes = assignments.after_recovery([recovered, other], 10, is_complete=True)
    assert changes == (Ended(recovered, 5, EndReason.ALLOCATED_AGAIN),)
    assert [assignment.key for assignment in assignments.current] == [other.key, "k1", "k0"]


def test_recovered_assignment_ended_before_the_recovery_if_another_container_has_its_devices() -> None:
    recovered = replace(allocated("k", 1), container=A, first_seen=2, last_seen=3)
    assignments, _ = report(Assignments(), 9, has(B))
    _, changes = assignments.after_recovery([recovered], 10, is_complete=True)
    assert changes == (Ended(recovered, 10, EndReason.ALLOCATED_AGAIN),)


def test_use_of_many_devices_without_an_allocation_has_several_assignments() -> None:
    ids = [f"x{number:04}" for number in range(MAX_AUDIT_IDS + 1)]
    assignments, changes = report(Assignments(), 1, has(A, *ids))
    assert [len(assignment.ids) for assignment in assignments.current] == [MAX_AUDIT_IDS, 1]
    assert len(changes) == 2
    _, changes = report(assignments, 2, has(A, *ids))
    assert changes == []
