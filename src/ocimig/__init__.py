"""ocimig: OCI containers that move between hosts."""

__version__ = "0.1.0"
