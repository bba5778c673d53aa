"""Worker processes that do what may hang: read files of the host, open device nodes, and call other programs.

The agent uses the pools (``read_pool``, ``call_pool``), which speak ``protocol`` with processes that run ``main``.
What a worker imports must not import asyncio or grpc: each worker would pay for it in memory.
"""
