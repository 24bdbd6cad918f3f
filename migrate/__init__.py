"""Where containers and CRIU meet, and where two hosts meet."""
