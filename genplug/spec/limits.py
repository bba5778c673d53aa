"""The limits on what a configuration, a policy and the hardware of a node may make genplug do.

Each limit is checked where the bounded thing is made, before the cost of making it is paid. The text of the error
contains the limit.

``docs/reference/limits.md`` is generated from this module: a comment starts a section, with its heading and the effect
of a limit, and a docstring has the form "what is bounded: the reason".
"""

# Configuration and policy: a file that exceeds a limit is invalid, and the error contains the limit and the location.

MAX_FILE_BYTES = 1 << 20
"""Bytes of a configuration file or policy: the largest ConfigMap that Kubernetes accepts."""

MAX_VALUES_FILE_BYTES = 5 << 20
"""Bytes of a values file of the chart: Helm's limit of a file in a chart."""

MAX_CONFIG_BYTES = 4 << 20
"""Bytes of all files of a configuration: a file is as large as a ConfigMap at most, and a node has few of them."""

MAX_FILES = 64
"""Files of a configuration: all of them are read again when one of them changes."""

MAX_CONFIG_VALUES = 40_000
"""Keys and values of a configuration: those that an alias or `defaults` repeats count each time."""

MAX_DEPTH = 50
"""Levels of lists and mappings in each other: a parser uses the stack of its thread for each level."""

MAX_DIAGNOSTICS = 100
"""Errors that are reported, and warnings that are reported: an author reads the first of them."""

MAX_RESOURCES = 300
"""Resource names, with aliases: each of them is a socket, a server and a registration with the kubelet."""

MAX_TOKENS = 50_000
"""Tokens of all resources: each of them is an entry in the list that the kubelet receives."""

MAX_PROBES = 64
"""Probes of a resource: each of them runs for each of its devices."""

MAX_PATTERNS = 10_000
"""Globs of a configuration or policy, where each alternative in braces counts: each of them is compiled."""

MAX_WILDCARDS = 20_000
"""Wildcards (`*`, `?` and `[...]`) of the globs of a configuration or policy: each of them is compiled."""

MAX_REGEXES = 500
"""Regular expressions of a configuration: each of them is compiled."""

MAX_REGEX_INSTRUCTIONS = 100_000
"""Instructions to which RE2 compiles the regular expressions of a configuration: a repetition multiplies them."""

MAX_GLOB_ALTERNATIVES = 1000
"""Globs to which the braces of a glob expand: each of them is searched on its own."""

MAX_GLOB_CHARACTERS = 4096
"""Characters of a glob: no path is longer (PATH_MAX)."""

MAX_EXPANDED_CHARACTERS = 65_536
"""Characters of all globs together to which the braces of a glob expand: they are kept in memory."""

MAX_REGEX_CHARACTERS = 4096
"""Characters of a regular expression, with the attribute values in it: it is compiled at once."""

MAX_REGEX_MEMORY_BYTES = 1 << 18
"""Bytes that RE2 uses for a regular expression: its program, and the states that a search adds to it."""

MAX_TEMPLATE_STEPS = 10_000
"""References and filters of the templates of a configuration: templates are rendered for each device."""

MAX_REFERENCES = 100
"""References of a template: each of them can take a value of several thousand characters."""

MAX_FILTERS = 16
"""Filters of one reference of a template: each of them can make the value longer."""

MAX_PAD_WIDTH = 64
"""Digits to which the filter `pad` fills a number: no number of the kernel is longer."""

MAX_CUSTOM_ATTRIBUTES = 100
"""Custom attributes of an entry of `devices`: each of them can be read for every candidate."""

MAX_ATTRIBUTE_DEPTH = 32
"""Custom attributes in a chain in which each refers to the next: they are read one inside the other."""

# Custom attributes: a candidate with an attribute that exceeds a limit is left out, with the limit in the reason.

MAX_ATTRIBUTE_VALUES = 1000
"""Values of a custom attribute with `all`: conditions and templates use each of them."""

MAX_ATTRIBUTE_CHARACTERS = 16_384
"""Characters of all values of a custom attribute together: the values are kept in memory."""

# Templates: a device for which a template exceeds a limit is left out or unhealthy, or its allocation is rejected.

MAX_VALUE_CHARACTERS = 4096
"""Characters of a value of a custom attribute, and of a value that the filter `replace` extends: no path and no
file of sysfs is longer (PATH_MAX, PAGE_SIZE)."""

MAX_RENDERED_CHARACTERS = 131_072
"""Characters of a rendered template: no environment variable or argument is longer (MAX_ARG_STRLEN, execve(2))."""

MAX_VALUE_COMBINATIONS = 1000
"""Texts to which a template renders: there is a text for each combination of the values of its attributes."""

MAX_VARIABLE_BYTES = 131_071
"""Bytes of an environment variable, with its name: the kernel starts no program with more (MAX_ARG_STRLEN)."""

MAX_ENVIRONMENT_BYTES = 1 << 21
"""Bytes of all environment variables of a container: a quarter of a stack of 8 MiB (execve(2))."""

# Devices: a scan that exceeds a limit keeps the last known devices, and `/readyz` and the status contain the limit.

MAX_SEARCHED_ENTRIES = 200_000
"""Directory entries that the search for a glob examines (a symlink counts 20 times): `*` can lead through `/sys`."""

MAX_MATCHES = 20_000
"""Paths that a glob matches, and candidates of a resource: each of them is examined."""

MAX_CANDIDATES = 20_000
"""Candidates of all resources of a node: they are kept in memory."""

MAX_COMPARISONS = 1_000_000
"""Comparisons of paths and values with the patterns of `exclude` and `where` in a scan: they take time."""

MAX_NODES_PER_DEVICE = 1000
"""Device nodes of a device: a container gets all of them. A device with more of them is unhealthy."""

MAX_NAMES_PER_TEMPLATE = 100
"""Resource names that a template creates: each of them is a resource. Other devices are left out with the reason."""

MAX_RENDERED_REGEXES = 100
"""Regular expressions to which a template renders for a device: each of them is compiled and searched for."""

MAX_SCAN_SECONDS = 30
"""Seconds of a scan of a resource: a scan that always makes progress would use a processor without an end."""

MAX_LIST_BYTES = 4 << 20
"""Bytes of the device list of a resource: the kubelet refuses larger messages. Other devices are not listed."""

MAX_GRANTS = 50_000
"""Entries in the device lists of all resources: each of them uses memory. Devices beyond the limit are not listed."""

MAX_RESPONSE_BYTES = 4 << 20
"""Bytes of an Allocate response: the kubelet refuses larger messages. The allocation is rejected with the limit."""

# Health: the work of probes is limited by their number and by the number of their runs.

MAX_PROBED_DEVICES = 20_000
"""Probes, counted for each device: each of them has a state. The others have an error that contains the limit."""

MAX_CALLS = 64
"""Programs, requests and connections of probes at the same time, with those that hang: each of them has a thread."""

MAX_CALLS_PER_RESOURCE = 32
"""Programs, requests and connections of the probes of a resource at the same time: others need places, too."""

MAX_HUNG_WORKERS = 8
"""Reads and opens of probes that are slow or hang at the same time: each of them has a process of about 10 MiB."""

MAX_HUNG_WORKERS_PER_RESOURCE = 4
"""Reads and opens of the probes of a resource that are slow or hang at the same time: others need places, too."""

MAX_COUNTER_SAMPLES = 500
"""Values of a counter that are kept for its window (`perSeconds`): a counter can change at each run."""

# CDI files of other programs: a file that exceeds a limit is ignored, and the reason of a device has the limit.

MAX_CDI_FILE_BYTES = 4 << 20
"""Bytes of a CDI file: the file of a node with eight GPUs has about 100 KiB."""

MAX_CDI_BYTES = 16 << 20
"""Bytes of all CDI files together: they are read when a directory of CDI files changes."""

MAX_CDI_FILES = 1000
"""CDI files of a directory: each of them is read."""

MAX_CDI_DEPTH = 100
"""Levels of lists and mappings of a CDI file: a valid file has about six."""

# Claims: a ResourceClaim that exceeds a limit is not prepared, and the error has the limit.

MAX_CLAIM_DEVICES = 32
"""Devices of a ResourceClaim: the API server accepts no allocation with more (AllocationResultsMaxSize)."""

MAX_CLAIM_CDI_BYTES = 4 << 20
"""Bytes of the CDI file of a claim: the container runtime reads all CDI files again when one of them changes."""

MAX_CLAIM_RECORD_BYTES = 8 << 20
"""Bytes of the record of a prepared claim, which has the text of the CDI file: a longer file counts as damaged."""

MAX_PREPARED_CLAIMS = 4096
"""Prepared claims of a node: their records are kept in memory, and a kubelet runs a few hundred pods."""

MAX_CLAIM_MEMORY_BYTES = 32 << 20
"""Bytes in memory of the texts of the CDI files of all claims: the chart limits the memory of an agent to 256 MiB."""

MAX_DAMAGED_RECORDS = 100
"""Damaged records in the directory `bad`: they are kept for the analysis of the damage, except the oldest files."""

# Comparisons: `genplug diff` reports an input that exceeds a limit, and compares nothing.

MAX_DIFF_NODES = 500
"""Nodes on which a change is compared: each of them is unpacked and scanned twice."""

# Audit log: an allocation of more devices has several records; the record counts what another limit leaves out.

MAX_AUDIT_QUEUE_BYTES = 8 << 20
"""Bytes of records that wait for the disk: the first records of a node with 10 000 devices have 3 MiB. Further records
are lost and counted."""

MAX_AUDIT_RECORD_BYTES = 1 << 20
"""Bytes of a line that `genplug audit` accepts: the agent writes shorter lines."""

MAX_AUDIT_IDS = 256
"""Device IDs of an assignment: each of them is in every record of the assignment."""

MAX_AUDIT_HARDWARE = 256
"""Devices whose hardware an assignment describes: a token of a pool stands for all devices of the pool."""

MAX_AUDIT_TEXT_CHARACTERS = 2048
"""Characters of a reason in a record: devices and other programs write parts of it."""

MAX_AUDIT_ASSIGNMENTS = 10_000
"""Assignments of an answer of `genplug audit`: they are kept in memory until all records are read."""

# Names and IDs that are made of values of the hardware: a value that changes must not create them without end.

MAX_NEW_NAMES_PER_HOUR = 20
"""Resource names that a template creates within an hour, beside those of its first scan: the kubelet, the scheduler
and the metrics database keep each name for a time."""

MAX_IDS_PER_HOUR = 100
"""New IDs of a device node within an hour: an ID of a value that changes does not identify the device."""

MAX_FORMER_THINGS = 10_000
"""Device nodes and paths that devices have lost and that pods may still use: the kubelet may not respond for a time."""

# kubectl genplug: a call of kubectl that exceeds a limit is ended, and the error contains the limit.

MAX_KUBECTL_CALLS = 256
"""kubectl processes at the same time: each of them uses about 50 MiB."""

MAX_KUBECTL_LIST_BYTES = 1 << 30
"""Bytes of a list that kubectl prints: the list of 5000 nodes has about 100 MB. It is read object by object."""

MAX_KUBECTL_ITEM_CHARACTERS = 4 << 20
"""Characters of an object in a list: etcd stores objects of at most 1.5 MiB, and kubectl indents them."""

MAX_KUBECTL_DOCUMENT_BYTES = 32 << 20
"""Bytes of any other output of kubectl: the status of an agent with 50 000 devices has about 15 MB."""

MAX_EXPLAINED_AGENTS = 50
"""Agents that `kubectl genplug pending` asks: the first answers show the cause, and each request takes a second."""

# Records: a fact that exceeds a limit is not known, and its reason contains the limit.

MAX_SEARCHED_PROCESSES = 100_000
"""Processes among which `genplug record` and `genplug doctor` search: the kernel has room for 4 194 304 (`pid_max`)."""

MAX_PACKAGE_STATUS_LINES = 1_000_000
"""Lines of the database of dpkg that `genplug record` reads: 3000 packages have about 100 000 lines."""

MAX_RECORDED_MOUNTS = 200
"""Mounts of the container of the agent: the chart makes about ten, and an entry of `hostMounts` adds another."""

MAX_RECORDED_DEVICES = 10_000
"""Devices in a record: several files of `/sys` are read for each of them."""

MAX_RECORDED_VERSIONS = 50
"""Versions of firmware of a device: an AMD GPU has about twenty."""

# Checks of the machine: a fact that exceeds a limit is not known or incomplete, and the finding states that.

MAX_KERNEL_LOG_BYTES = 16 << 20
"""Bytes of the kernel log that syslog reads at once: the buffer usually has 128 KiB to 2 MiB (`log_buf_len`)."""

MAX_KERNEL_LOG_POLL_BYTES = 64 << 10
"""Bytes at the end of the kernel log that syslog reads every second: the whole log is read only if more are new."""

MAX_KERNEL_FILE_BYTES = 1 << 20
"""Bytes of a file of the kernel, of the kubelet or of the container runtime: they have at most a few hundred KiB."""

MAX_MOUNT_LIST_BYTES = 16 << 20
"""Bytes of the list of mounts: a node with 100 pods has a few thousand mounts of about 200 bytes."""

MAX_EXAMINED_DESCRIPTORS = 10_000
"""Descriptors of a process that `genplug doctor` examines for inotify instances: each of them is a file to read."""

MAX_CHECKPOINT_BYTES = 16 << 20
"""Bytes of the checkpoint of the kubelet: with 10 000 devices and 100 pods it has less than 2 MiB."""

MAX_PLUGIN_SOCKETS = 1000
"""Sockets in the directory of the device plugins: each resource has one of them."""

MAX_RUNTIME_FILES = 50
"""Configuration files that a container runtime imports: each of them is read."""

# Documents of other programs: a document that exceeds the limit is handled like a text that is not JSON.

MAX_JSON_DEPTH = 100
"""Levels of lists and mappings in a JSON document: the functions that print it recurse for each level."""

# Status: a response that exceeds the limit is an error.

MAX_STATUS_BYTES = 64 << 20
"""Bytes of the status that `genplug status` reads: the status of an agent with 50 000 devices has about 15 MB."""

# Bundles: a part of a bundle that exceeds a limit is cut or left out, and the list of its files has the reason.

MAX_BUNDLE_FILE_BYTES = 16 << 20
"""Bytes of a file of a bundle: the status of an agent with 50 000 devices has about 15 MB."""

MAX_BUNDLE_LOG_BYTES = 8 << 20
"""Bytes of the log in a bundle, from its end: an agent writes less in a day without failures."""

MAX_BUNDLE_BYTES = 64 << 20
"""Bytes of all files of a bundle: a larger file cannot be attached to a report."""

# API server: a request that exceeds a limit fails, and is repeated later.

MAX_API_CONNECTIONS = 4
"""Connections to the API server at the same time, beside the connection of the watch: each has buffers of TLS."""

MAX_API_BODY_BYTES = 16 << 20
"""Bytes of an answer of the API server: a page of 100 slices with 64 devices each has a few MiB."""

MAX_API_EVENT_BYTES = 4 << 20
"""Bytes of an event of a watch: etcd stores objects of at most 1.5 MiB."""

MAX_API_SLICES = 10_000
"""ResourceSlices of a driver on a node: 50 000 devices have 782 slices. Another client can have created others."""
