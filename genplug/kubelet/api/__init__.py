"""The kubelet's protocols: ``.proto`` files, the code generated from them, and names that the code does not contain.

The protobuf packages ``v1beta1`` and ``v1`` are the kubelet's, and so are the full names of the messages. Python keeps
the descriptors of a process in one pool, in which a full name can exist once. A process that imports these modules
**and** another library's copy of the same protocol gets a ``TypeError`` ("duplicate symbol 'v1beta1.Empty'") from the
second import. The copies have different file names on purpose: a conflict under one file name is harder to read. None
of genplug's dependencies has such a copy. A test that needs both copies runs them in two processes.

``python -m genplug.kubelet.api.regenerate`` generates the modules again; ``--check`` reports whether that is necessary.
"""

from google.protobuf.internal import api_implementation

from genplug.lean_imports import replace_modules

# The messages are implemented in C. The modules that implement them in Python take 5 ms to import.
if api_implementation.Type() == "upb":
    with replace_modules("google.protobuf.internal.python_message"):
        from google.protobuf.internal import builder  # noqa: F401 - for the generated modules, which import it
