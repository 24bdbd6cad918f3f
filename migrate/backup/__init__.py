"""Snapshots of running containers into a store, and containers out of it. docs/formats/store.md is the format."""
