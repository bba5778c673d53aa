"""A client of the API server of Kubernetes, for Dynamic Resource Allocation.

It is imported only if a resource is served by Dynamic Resource Allocation: h11 and OpenSSL use several MiB.
"""
