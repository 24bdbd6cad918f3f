"""Snapshots by content: packs of blobs, and manifests that name them. docs/formats/store.md is the format."""
