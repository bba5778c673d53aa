"""Attacks of containers, processes, clients and peers other than a configuration editor, and failures of the system."""

from tests.attacks.catalog import Adversary, Attack


def _tests(file: str, *names: str) -> tuple[str, ...]:
    """Return the names of tests in a file."""
    return tuple(f"{file}::{name}" for name in names)


CONTAINER, NETWORK, WORLD = Adversary.PRIVILEGED_CONTAINER, Adversary.NETWORK, Adversary.WORLD

ATTACKS = (
    # A privileged container on the node.
    Attack(
        "container-replace-nodes",
        CONTAINER,
        "Replaces device nodes without pause by links, disks, memory and other devices while pods start",
        "Allocate checks the node again; a CDI file has its type and numbers. With `inject: nodes`, the path of a "
        "right answer can still be replaced before the container starts",
        (
            *_tests(
                "attacks/world/test_swap.py",
                "test_device_node_that_is_replaced_without_pause_gives_no_other_device",
                "test_answer_without_a_genuine_device_during_the_call_is_wrong",
                "test_cdi_file_with_another_device_is_wrong",
            ),
            *_tests(
                "contract/test_cdi_injection.py",
                "test_67_cdi_file_defines_the_devices_that_allocate_names",
            ),
        ),
        ("Symlink swap",),
    ),
    Attack(
        "container-take-directory",
        CONTAINER,
        "Deletes or replaces the device plugin directory, or starts a second agent in it",
        "The agent detects the replaced directory and ends, so that it gets the new directory; a lock excludes "
        "a second agent",
        (
            *_tests(
                "contract/test_hostility.py",
                "test_26_process_exits_when_its_plugin_directory_is_replaced",
                "test_26_bind_mount_of_a_deleted_directory_ends_the_agent",
                "test_16_second_process_waits_without_touching_files_of_the_first",
            ),
        ),
        ("Any root process",),
    ),
    Attack(
        "container-litter-directory",
        CONTAINER,
        "Puts files, sockets and links with the names of genplug into the device plugin directory",
        "Only stale sockets with the prefix of genplug are removed; the identity of the own socket is compared",
        (
            *_tests(
                "contract/test_registration.py",
                "test_15_stale_socket_is_removed_and_other_file_types_are_kept",
                "test_18_foreign_files_in_the_plugin_directory_are_ignored",
            ),
        ),
        ("Any root process",),
    ),
    Attack(
        "container-shadow-cdi-file",
        CONTAINER,
        "Defines a CDI device of genplug in another CDI file, or removes the file of genplug",
        "Allocate refuses a device that another file defines, and writes a removed file again",
        (
            *_tests(
                "contract/test_cdi_injection.py",
                "test_cdi_device_that_another_file_defines_is_refused_with_the_file",
                "test_cdi_file_of_a_later_directory_is_refused",
                "test_67_deleted_cdi_file_is_written_again_before_allocate_returns",
            ),
        ),
        ("CDI hooks",),
    ),
    # A client on a socket of a resource.
    Attack(
        "client-send-garbage",
        CONTAINER,
        "Sends garbage, half requests and unknown methods to the socket of a resource, and reads no answer",
        "A connection is independent of others; a stream that is not read keeps the newest list only",
        (
            *_tests(
                "contract/test_hostility.py",
                "test_30_server_survives_garbage_and_half_open_connections",
                "test_29_unread_stream_keeps_the_newest_list_and_delays_nothing_else",
                "test_35_sigterm_ends_process_during_hung_register_and_unread_stream",
            ),
        ),
    ),
    Attack(
        "container-open-stream-early",
        CONTAINER,
        "Opens ListAndWatch on the socket of a resource before the kubelet, and keeps it open",
        "The endpoint waits five seconds for the end of such a stream, and registers on another socket",
        _tests(
            "unit/kubelet/test_endpoint_state.py",
            "test_stream_of_another_process_before_the_registration_delays_it_for_5_s",
            "test_kubelet_that_is_replaced_during_register_is_registered_with",
            "test_endpoint_with_a_stream_retires_5_s_after_kubelet_socket_was_replaced",
        ),
        ("Any root process",),
    ),
    Attack(
        "client-hold-connections",
        CONTAINER,
        "Opens idle connections to the socket of a resource until the agent has no descriptor left",
        "64 connections for each resource, ten seconds to begin; the agent waits for descriptors",
        (
            *_tests(
                "contract/test_system_errors.py",
                "test_idle_connections_to_a_plugin_socket_do_not_end_an_agent_with_few_descriptors",
            ),
            *_tests(
                "unit/kubelet/test_endpoint.py",
                "test_idle_connections_are_limited_and_end_at_their_deadline",
            ),
        ),
    ),
    # A client of the HTTP pages.
    Attack(
        "network-hold-connections",
        NETWORK,
        "Opens 1 500 idle connections to the HTTP server, or does not read a response",
        "A limit of connections, deadlines, no thread for a connection, and descriptors kept for the kubelet",
        (
            *_tests(
                "contract/test_network_clients.py",
                "test_idle_connections_neither_end_nor_grow_the_agent",
            ),
            *_tests(
                "unit/observe/test_http_server.py",
                "test_idle_connections_use_no_threads_and_do_not_exclude_other_clients",
                "test_client_with_all_connections_does_not_exclude_other_clients",
                "test_client_that_does_not_read_is_disconnected_at_its_deadline",
                "test_last_descriptors_of_the_process_are_not_used_for_connections",
            ),
        ),
    ),
    Attack(
        "network-read-secrets",
        NETWORK,
        "Reads lines of the configuration, reasons, the status or the page from another machine, or by DNS rebinding",
        "Other hosts receive codes and locations only; the Host header is checked",
        (
            *_tests(
                "unit/observe/test_http.py",
                "test_clients_on_other_hosts_receive_codes_and_locations_of_errors_only",
                "test_clients_on_other_hosts_receive_no_reasons_of_endpoints",
                "test_status_is_refused_to_clients_that_do_not_use_a_loopback_address",
            ),
            *_tests(
                "unit/observe/test_http_server.py",
                "test_host_header_with_a_public_name_is_refused",
                "test_other_methods_are_refused_with_the_allowed_methods",
            ),
        ),
    ),
    # Texts of hostile devices, files and peers.
    Attack(
        "device-forge-terminal-text",
        WORLD,
        "Names a device with escape sequences, newlines or bidirectional controls, or with markup",
        "Every text output escapes them, and a line remains a line",
        (
            *_tests(
                "unit/observe/test_log_format.py",
                "test_text_of_a_device_is_one_escaped_line",
            ),
            *_tests(
                "unit/observe/test_page.py",
                "test_text_of_devices_pods_and_files_is_never_markup",
            ),
            *_tests(
                "unit/spec/test_printable.py",
                "test_line_is_printable_and_printable_text_is_unchanged",
                "test_texts_of_an_escaped_document_are_lines",
            ),
        ),
    ),
    Attack(
        "process-forge-kernel-event",
        CONTAINER,
        "Sends a kernel event (uevent), or writes a record to the kernel log, as a program",
        "Messages that the kernel did not send, and records of programs, are ignored",
        (
            *_tests(
                "unit/hardware/test_uevents.py",
                "test_message_of_another_process_is_ignored",
            ),
            *_tests(
                "unit/health/test_kernel_log.py",
                "test_record_of_a_program_does_not_count",
            ),
        ),
    ),
    Attack(
        "support-send-archive",
        WORLD,
        "Passes an archive with links, FIFOs, nested headers, bombs or changed bytes to `--root`",
        "One reader unpacks regular files, directories and links inside of the target, with limits",
        (
            *_tests(
                "unit/capture/test_archive.py",
                "test_hostile_archive_is_refused_and_writes_nothing_outside",
                "test_archive_with_changed_bytes_is_unpacked_or_refused",
                "test_size_of_unpacked_archive_is_bounded",
            ),
        ),
    ),
    # Peers.
    Attack(
        "kubelet-answer-garbage",
        WORLD,
        "The kubelet refuses, answers garbage, hangs, or answers for the pod-resources API with bytes of no message",
        "Each call has a deadline and ends in a value or a known error; the agent retries",
        (
            *_tests(
                "contract/test_system_errors.py",
                "test_kubelet_socket_that_answers_garbage_is_retried",
                "test_pod_resources_response_that_is_not_a_message_is_a_known_error",
                "test_removed_resource_is_kept_while_pod_resources_returns_garbage",
            ),
            *_tests(
                "contract/test_registration.py",
                "test_06_hung_register_is_abandoned_and_retried",
                "test_06_slow_register_is_awaited_and_delays_no_other_resource",
            ),
        ),
    ),
    # The system.
    Attack(
        "system-lose-socket",
        WORLD,
        "A full or read-only directory lets the socket of a resource be lost, and no other can be created",
        "The failed step is an event with the error of the system, once for each reason, and is repeated",
        (
            *_tests(
                "contract/test_endpoint_faults.py",
                "test_full_directory_is_an_event_once_with_the_error_of_the_system",
                "test_read_only_directory_is_an_event_with_the_error_of_the_system",
            ),
            *_tests(
                "unit/kubelet/test_endpoint_state.py",
                "test_every_fault_in_every_state_leads_to_a_reason_and_a_retry",
            ),
            *_tests(
                "attacks/world/test_endpoint_recovery.py",
                "test_endpoint_serves_again_from_every_state_when_the_faults_end",
                "test_failed_step_is_logged_once_for_each_reason",
                "test_every_failed_step_in_every_state_is_logged_with_its_error",
            ),
        ),
    ),
    Attack(
        "system-refuse-resources",
        WORLD,
        "No descriptor, thread, process or access to a directory is granted any more",
        "The tasks wait for the system, report it and continue",
        (
            *_tests(
                "contract/test_system_errors.py",
                "test_agent_without_free_descriptors_continues",
                "test_devices_stay_healthy_while_no_file_can_be_opened",
                "test_agent_that_cannot_start_threads_continues",
                "test_unreadable_kubelet_directory_is_waited_for",
            ),
            *_tests(
                "unit/health/workers/test_start_failures.py",
                "test_process_limit_is_named",
            ),
        ),
    ),
    Attack(
        "system-kill-agent",
        WORLD,
        "The agent or a probe worker is killed while programs of probes run, or an agent is killed with open sockets",
        "A worker is the leader of a session, whose processes are killed with it; the next agent removes the sockets",
        (
            *_tests("attacks/world/test_left_programs.py", "test_program_of_a_probe_ends_with_the_agent"),
            *_tests("unit/health/workers/test_call_pool.py", "test_programs_end_with_the_worker"),
            *_tests("contract/test_hostility.py", "test_35_sockets_of_a_killed_process_are_removed_at_the_next_start"),
            *_tests("contract/test_audit.py", "test_crash_in_the_middle_of_a_record_loses_only_that_record"),
        ),
    ),
    Attack(
        "system-set-clock",
        WORLD,
        "The time of the node jumps forward past the age after which files of the audit log are deleted",
        "Files are deleted by age only when the time has been steady for a day by a clock that nothing sets",
        (
            *_tests(
                "unit/audit/test_writer.py",
                "test_no_file_is_deleted_at_a_start_with_a_time_that_jumped",
                "test_no_file_is_deleted_when_the_time_jumps_while_the_log_is_written",
            ),
            *_tests("unit/audit/test_steady_clock.py", "test_time_is_never_trusted_within_a_day_after_a_jump"),
        ),
    ),
    Attack(
        "system-block-log",
        WORLD,
        "The log is a pipe that nothing reads, or that is closed",
        "A thread writes the log; lines are dropped and counted",
        (
            *_tests(
                "contract/test_shutdown.py",
                "test_log_that_nothing_reads_blocks_neither_allocations_nor_the_end",
                "test_dropped_lines_are_counted_in_the_log_when_it_is_read_again",
            ),
            *_tests(
                "unit/observe/test_log_writer.py",
                "test_lines_for_a_closed_reader_are_dropped",
            ),
        ),
    ),
    Attack(
        "system-hang-at-end",
        WORLD,
        "A read-only directory, a dead file system, a driver or a blocked loop keeps the agent from ending",
        "SIGTERM ends the process within two seconds and frees the lock",
        (
            *_tests(
                "contract/test_shutdown.py",
                "test_read_only_directory_ends_the_process_with_success",
                "test_hanging_file_system_does_not_delay_the_end",
                "test_event_loop_that_hangs_does_not_delay_the_end",
            ),
            *_tests(
                "contract/test_stalled_allocate.py",
                "test_sigterm_ends_the_process_although_a_scan_and_the_configuration_hang",
                "test_sigterm_frees_the_node_although_a_driver_keeps_the_process_from_exiting",
            ),
        ),
    ),
    Attack(
        "system-hang-files",
        WORLD,
        "Files of devices, mounts, CDI files or the configuration hang",
        "Reads have deadlines and run in threads; only the resource that needs the file is affected",
        (
            *_tests(
                "contract/test_stalled_scan.py",
                "test_hung_attribute_delays_neither_devices_nor_reload_nor_probes_of_others",
            ),
            *_tests(
                "contract/test_stalled_allocate.py",
                "test_dead_mount_source_delays_no_other_resource",
                "test_dead_mount_source_fails_its_allocations",
                "test_dead_cdi_directory_withholds_the_devices_of_its_resources_only",
            ),
            *_tests(
                "contract/test_stalled_scan.py",
                "test_configuration_directory_that_hangs_delays_only_reloads",
            ),
        ),
    ),
    Attack(
        "world-fail-one-resource",
        WORLD,
        "Files, directories, sockets and the kubelet fail for one resource: EIO, ENOSPC, EROFS, refusals, garbage",
        "Each resource has its own endpoint, scan and files; other resources are listed and allocated meanwhile",
        _tests("attacks/world/test_other_resources.py", "test_fault_of_a_resource_stops_no_other"),
    ),
    Attack(
        "system-fail-task",
        WORLD,
        "A task of the agent fails by an error that genplug does not expect",
        "The task is started again, and readiness reports it",
        (
            *_tests(
                "contract/test_failed_tasks.py",
                "test_failed_task_is_reported_and_works_again",
            ),
            *_tests(
                "contract/test_stalled_scan.py",
                "test_task_that_fails_is_started_again_and_readiness_says_so",
            ),
            *_tests(
                "unit/agent/test_supervision.py",
                "test_failed_task_is_started_again_and_logged",
            ),
        ),
    ),
    Attack(
        "hardware-change-without-pause",
        WORLD,
        "Devices appear and disappear without pause while sockets and streams are lost",
        "A change is in the list within a second",
        (
            *_tests(
                "contract/test_endpoint_faults.py",
                "test_each_change_of_a_flapping_device_is_listed",
                "test_devices_are_back_after_each_loss_without_a_failed_attempt",
            ),
            *_tests(
                "unit/kubelet/test_endpoint_state.py",
                "test_pauses_after_the_first_losses_are_shorter_than_a_second",
            ),
            *_tests(
                "contract/test_search_limits.py",
                "test_endless_search_is_visible_and_delays_no_other_resource",
            ),
        ),
    ),
    Attack(
        "hardware-give-twice",
        WORLD,
        "Devices are replaced, renamed and linked while pods start, the configuration changes, and the agent and the "
        "kubelet restart",
        "A device remains with the ID that a pod uses; aliases of a device in use are unhealthy; Allocate checks nodes",
        (
            *_tests("attacks/world/test_given_twice.py", "test_no_history_gives_a_device_to_two_containers"),
            *_tests("unit/hardware/test_identities.py", "test_no_random_history_gives_hardware_under_two_ids"),
        ),
    ),
    Attack(
        "peer-starve-probes",
        WORLD,
        "Slow servers and hanging files of a resource use all workers of probes",
        "A resource has a limited number of places, and a timeout has a maximum",
        (
            *_tests(
                "contract/test_health.py",
                "test_slow_probes_of_a_resource_do_not_delay_the_probes_of_others",
            ),
            *_tests(
                "unit/health/workers/test_places.py",
                "test_last_places_are_for_resources_without_a_place",
            ),
            *_tests(
                "unit/health/workers/test_read_pool.py",
                "test_hung_reads_of_a_resource_leave_places_for_others",
            ),
        ),
    ),
)
