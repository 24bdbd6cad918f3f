"""The doorman: command lines, exit codes, the terminal. Never decides what happens to a container."""
