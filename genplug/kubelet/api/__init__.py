"""The kubelet's protocols: ``.proto`` files, the code generated from them, and the names that are not in it.

The packages ``v1beta1`` and ``v1`` are the kubelet's own, so the full names of the messages are too. Python keeps all
descriptors of a process in one pool, where a full name may exist once: a process that imports these modules **and**
another library's copy of the same protocol under another file name gets a ``TypeError`` from the second import. No
released library on PyPI that genplug depends on has one; a test that needs both runs them in two processes.

``python -m genplug.kubelet.api.regenerate`` makes the generated modules anew, ``--check`` says whether it must be done.
"""
