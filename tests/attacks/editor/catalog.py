"""Attacks of a configuration editor, who writes the ConfigMap and must gain only what the policy allows."""

from tests.attacks.catalog import Adversary, Attack


def _attack(name: str, tried: str, stopped_by: str, *tests: str, threats: tuple[str, ...] = ()) -> Attack:
    return Attack(f"editor-{name}", Adversary.EDITOR, tried, stopped_by, tests, threats)


ATTACKS = (
    # Device nodes.
    _attack(
        "offer-memory-or-disk",
        "Offers /dev/mem, /dev/kmsg, a console, a disk or another node that controls the host, also under another name",
        "Device numbers, subsystems and drivers are compared with the built-in list",
        "contract/test_policy_on_node.py::test_default_policy_denies_disks_and_memory",
        "contract/test_policy_on_node.py::test_policy_denies_devices_plugged_later",
        "unit/hardware/test_denied_nodes.py::test_node_that_controls_the_host_is_denied_under_any_policy",
        "unit/hardware/test_denied_nodes.py::test_denied_node_is_excluded_under_another_path",
        "unit/hardware/test_denied_nodes.py::test_denied_real_node_is_recognized_by_its_numbers",
        threats=("An editor of the ConfigMap can expose",),
    ),
    _attack(
        "add-denied-companion",
        "Adds a denied device node to a device that is allowed, with `with` or `nodes`",
        "The policy applies to each device node of a device",
        "unit/hardware/test_denied_nodes.py::test_device_that_includes_a_denied_node_is_excluded",
    ),
    _attack(
        "swap-node",
        "Lets a device node, or a link to it, change to a disk between the list and Allocate",
        "Allocate resolves the path again and compares the type, major and minor number",
        "contract/test_real_devices.py::test_59_device_node_that_changed_since_the_list_is_not_allocated",
        threats=("Symlink swap",),
    ),
    _attack(
        "share-node-twice",
        "Gives two devices of a container the same path, so that one hides the other",
        "The container path of each device node in a response is unique",
        "contract/test_allocate.py::test_56_devices_with_the_same_container_path_are_refused_in_a_container",
    ),
    _attack(
        "offer-one-id-twice",
        "Offers one device node in two resources, or under two IDs",
        "The first resource gets a device node; the others report the conflict",
        "contract/test_identities.py::test_42_second_claim_has_the_same_result_at_start_and_at_reload",
        "unit/hardware/test_denied_nodes.py::test_denied_device_takes_neither_id_nor_node_from_another",
    ),
    # Mounts and files of the container.
    _attack(
        "mount-host-directory",
        "Mounts /, /etc, /var/lib/kubelet or the socket of the container runtime",
        "The default policy allows no mount; `mounts.allow` applies to the path with and without links",
        "unit/config/decode/test_denials.py::test_default_policy_allows_no_mount",
        "contract/test_policy_on_node.py::test_mounts_are_limited_to_the_directories_of_the_policy",
        "contract/test_allocate.py::test_58_missing_mount_source_fails_allocate_and_is_not_created",
        threats=("`mounts` in Allocate",),
    ),
    _attack(
        "replace-container-file",
        "Mounts a file over the accounts, the loader or the secrets of a container, also with a rendered path",
        "Protected paths are refused under every policy, for literal and for rendered paths",
        "unit/spec/test_container_rules.py::test_mount_must_not_change_files_that_a_container_depends_on",
        "unit/spec/test_container_rules.py::test_spelling_of_a_path_does_not_change_what_is_allowed",
        "unit/spec/test_container_rules.py::test_device_node_must_be_below_dev",
    ),
    # Names and texts for the container runtime.
    _attack(
        "set-loader-variable",
        "Sets LD_PRELOAD, PATH, BASH_ENV or another variable that controls what a container runs",
        "The built-in list of denied variables applies to literal and to rendered names",
        "unit/config/decode/test_denials.py::test_default_policy_denies_variables_that_control_programs",
        "contract/test_allocate.py::test_rendered_name_of_a_variable_is_checked_as_a_literal_name",
        threats=("Injection of env and annotations",),
    ),
    _attack(
        "select-all-devices",
        "Sets NVIDIA_VISIBLE_DEVICES or a similar variable to `all`, or to the name of a CDI device",
        "These values are denied, also when they are rendered",
        "unit/config/decode/test_denials.py::test_default_policy_denies_all_devices_or_none",
        "unit/config/decode/test_denials.py::test_default_policy_denies_cdi_devices_in_a_variable",
        "unit/spec/test_container_rules.py::test_denied_value_is_found_in_the_rendered_text",
    ),
    _attack(
        "instruct-runtime",
        "Sets annotations from which a container runtime takes instructions",
        "The default policy allows no annotation; `cdi.k8s.io/` and `io.kubernetes.` are refused under every policy",
        "unit/config/decode/test_denials.py::test_default_policy_allows_no_annotation",
        "unit/config/decode/test_denials.py::test_annotation_of_the_kubelet_is_invalid_under_any_policy",
        threats=("Injection of env and annotations",),
    ),
    _attack(
        "request-foreign-cdi-device",
        "Names a CDI device of another program, such as management.nvidia.com/gpu=all",
        "The default policy allows no CDI device of another program",
        "unit/config/decode/test_denials.py::test_default_policy_allows_no_cdi_device",
        "contract/test_cdi_injection.py::test_cdi_device_that_another_file_defines_is_refused_with_the_file",
    ),
    _attack(
        "add-cdi-hook",
        "Adds a hook, which the container runtime runs as root on the node, to a CDI file",
        "No key of the configuration adds hooks, and rendered texts cannot add keys to a CDI file",
        "attacks/editor/test_cdi_files.py::test_hook_in_a_configuration_is_an_unknown_key",
        "attacks/editor/test_cdi_files.py::test_text_of_a_configuration_adds_no_key_to_a_cdi_file",
        threats=("CDI hooks",),
    ),
    _attack(
        "send-invalid-text",
        "Renders a NUL byte, invalid UTF-8 or more text than the kernel accepts into a response",
        "The device is unhealthy with the reason, before a pod requests it",
        "unit/spec/test_container_rules.py::test_text_that_cannot_be_sent_is_rejected_everywhere",
        "unit/spec/test_container_rules.py::test_environment_is_limited_to_what_the_kernel_starts_a_program_with",
    ),
    # Programs and connections.
    _attack(
        "run-program",
        "Runs a program in `preStart` or in an `exec` probe",
        "The default policy allows no program",
        "unit/config/decode/test_denials.py::test_default_policy_allows_no_program",
        threats=("exec-style health probes",),
    ),
    _attack(
        "connect-to-node-services",
        "Sends a probe to a metadata service, to the kubelet, to the API server or to another host",
        "The default policy allows loopback addresses without the ports of the cluster; redirects are not followed",
        "unit/health/probes/test_http.py::test_default_policy_denies_other_addresses_and_ports_of_the_cluster",
        "unit/health/probes/test_http.py::test_redirect_is_not_followed",
        "unit/health/probes/test_http.py::test_name_that_the_policy_cannot_allow_is_not_resolved",
        "unit/health/probes/test_http.py::test_reason_has_nothing_of_the_response_but_the_status",
        "unit/health/probes/test_tcp_socket.py::test_default_policy_denies_ports_of_the_cluster",
        "unit/spec/test_connect_rules.py::test_every_spelling_of_an_address_is_the_address",
    ),
    _attack(
        "connect-to-unix-socket",
        "Sends a probe to a Unix socket, also through a link",
        "The default policy allows no socket; a path is compared before and after its links",
        "unit/health/probes/test_unix_socket.py::test_default_policy_allows_no_socket",
        "unit/health/probes/test_unix_socket.py::test_socket_is_compared_with_the_policy_before_and_after_its_links",
    ),
    # Reads of the host.
    _attack(
        "read-host-file",
        "Reads /etc/shadow or another file of the host into a variable, a name, a condition or a reason",
        "`read.allow` applies to the path before and after its links, and to rendered paths",
        "unit/spec/test_read_rules.py::test_default_policy_refuses_other_files_and_secrets",
        "unit/hardware/test_read_policy.py::test_attribute_behind_a_link_out_of_the_allowed_files_has_no_value",
        "unit/hardware/test_read_policy.py::test_path_that_renders_to_another_file_is_refused",
        "unit/health/probes/test_file.py::test_file_that_the_policy_does_not_allow_is_not_read",
    ),
    _attack(
        "learn-what-exists",
        "Learns from a reason whether a file of the host exists",
        "A refused path has the same reason whether or not it exists",
        "unit/hardware/test_read_policy.py::test_reason_does_not_reveal_whether_a_path_exists",
        "unit/hardware/test_read_policy.py::test_glob_does_not_reveal_whether_a_file_exists",
        "unit/health/probes/test_file.py::test_glob_does_not_reveal_whether_a_file_exists",
    ),
    _attack(
        "open-device-by-read",
        "Lets an attribute or a probe open a device node, a named pipe or an endless file",
        "Only regular files are opened, and at most 64 KiB are read",
        "unit/hardware/test_read_policy.py::test_pipe_and_endless_file_are_not_opened",
        "unit/health/probes/test_file.py::test_device_node_matched_by_glob_is_not_opened",
    ),
    # Work, memory and time.
    _attack(
        "exhaust-agent",
        "Writes a small file that needs unbounded time or memory: filters, globs, expressions, aliases, numbers",
        "A file that exceeds a limit is refused with the limit, and the last valid configuration remains active",
        "contract/test_hostile_files.py::test_file_over_a_limit_is_rejected_while_the_last_valid_one_is_active",
        "unit/config/test_limits.py::test_file_is_refused_with_the_limit_that_it_exceeds",
        "unit/config/test_limits.py::test_file_of_1_mib_takes_no_more_than_a_second",
        "unit/config/test_limits.py::test_files_of_1_mib_take_little_memory",
        "unit/spec/test_regex.py::test_regex_takes_linear_time",
        "contract/test_search_limits.py::test_endless_search_is_visible_and_delays_no_other_resource",
        threats=("YAML bombs",),
    ),
    _attack(
        "stop-agent-by-number",
        "Writes a number such as `periodSeconds: 1e-310` that blocks a loop",
        "Each number has a minimum and a maximum",
        "unit/config/test_number_ranges.py::test_every_number_of_the_schema_has_a_range",
        "unit/config/test_number_ranges.py::test_number_without_sense_is_an_error_at_its_location",
    ),
    _attack(
        "break-active-configuration",
        "Replaces the configuration with an invalid file, or deletes it",
        "The last valid configuration remains active, and the error is reported",
        "contract/test_reload.py::test_68_invalid_file_is_reported_and_changes_nothing",
        "contract/test_reload.py::test_68_deleted_file_keeps_the_last_good_configuration",
        threats=("Reload of an invalid configuration",),
    ),  # Roles with other rights than an editor.
    Attack(
        "container-displace-plugin",
        Adversary.PRIVILEGED_CONTAINER,
        "Deletes or replaces the socket of a resource in the device plugin directory",
        "Root on the node cannot be prevented; the agent detects the loss, reports it and registers again",
        (
            "contract/test_kubelet_restart.py::test_22_wiped_sockets_are_created_and_registered_again",
            "contract/test_kubelet_restart.py::test_22_socket_replaced_by_another_process_is_registered_again",
        ),
        ("Any root process",),
    ),
    Attack(
        "pod-request-any-resource",
        Adversary.POD,
        "Requests a resource that the namespace may not use",
        "Kubernetes has no permission for it; the admission policy of the chart, or a ResourceQuota, rejects the pod",
        ("cluster/test_chart_on_a_cluster.py::test_admission_policy_restricts_editors_and_namespaces",),
        ("Anyone who can create pods",),
    ),
    Attack(
        "process-forge-allocate",
        Adversary.LOCAL_PROCESS,
        "Sends Allocate requests to the socket of a resource as a user other than root",
        "The sockets and their directory are accessible to their owner only, for any umask",
        ("contract/test_registration.py::test_14_sockets_are_private_to_the_owner_for_any_umask",),
        ("Forged Allocate requests",),
    ),
)
