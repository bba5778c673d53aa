"""The environment variables that gRPC reads when it is imported."""

import os


def set_grpc_environment() -> None:
    """Set the variables of gRPC, unless they are set; call this before gRPC is imported.

    This process never forks, so gRPC does not have to handle forks (https://github.com/grpc/grpc/issues/17986). The
    agent logs failed calls itself.
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
