"""CRIU as a tool and its images as values: knows nothing of containers."""
