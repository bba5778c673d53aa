"""The v1beta1 device plugin protocol: sockets, registration, and one gRPC endpoint per resource."""
