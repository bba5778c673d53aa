"""The configuration language: files with positions in, one frozen :class:`~genplug.spec.model.Config` out.

Nothing here knows of hardware, the kubelet or time; docs/reference/configuration.md is the page it implements.
"""
