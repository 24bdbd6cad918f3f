"""Containers, and only that: knows nothing of CRIU and nothing of other hosts."""
