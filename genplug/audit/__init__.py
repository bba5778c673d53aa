"""The audit log: its records, the files that contain them, and the answers to queries.

``records`` defines the records, ``assignments`` decides which container has which devices, ``writer`` writes the files
in a thread, ``reader`` reads them, and ``query`` answers questions. Only ``writer`` and ``reader`` access files.
"""
