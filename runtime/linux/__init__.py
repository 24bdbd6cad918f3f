"""The kernel's calls, one function each, with the kernel's names and errno. Decides nothing."""
