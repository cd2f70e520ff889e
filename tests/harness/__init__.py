"""What integration tests are written with: servers, the RPC proxy, namespaces, small filesystems, trees.

One noun a file; docs/testing.md tells how they go together.
"""
