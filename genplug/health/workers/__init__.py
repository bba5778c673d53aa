"""Worker processes for operations that may hang: reading files of the host, opening device nodes, calling programs.

The agent uses the pools (``read_pool``, ``call_pool``), which exchange messages (``protocol``) with processes that run
``main``. ``read_pool`` detects and abandons a hung read, ``call_pool`` a hung call.
A module that a worker imports must not import asyncio or grpc, because each worker would pay for it in memory.
"""
