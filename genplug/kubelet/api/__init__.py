"""The kubelet's protocols: ``.proto`` files, the code generated from them, and the names that are not in it.

The packages ``v1beta1`` and ``v1`` are the kubelet's own, so the full names of the messages are too. Python keeps all
descriptors of a process in one pool, where a full name may exist once. A process that imports these modules **and**
another library's copy of the same protocol gets a ``TypeError`` ("duplicate symbol 'v1beta1.Empty'") from the second
import, because the file names differ; under the same file name it would be a conflict that is harder to read. None of
genplug's dependencies has such a copy; a test that needs both runs them in two processes.

``python -m genplug.kubelet.api.regenerate`` makes the generated modules anew, ``--check`` says whether it must be done.
"""
