"""The status page: the content of ``/`` as elements, its style sheet and script, and the events that update it.

The package is imported at the first request of the page, so that an agent without such a client needs no memory for it.
"""
