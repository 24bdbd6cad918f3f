"""Snapshots of running containers into a store, and containers out of it again."""
