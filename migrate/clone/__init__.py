"""Several running copies of one checkpoint, each with its own name, files, cgroup, host name and address.

plan    what each copy is called, and how it differs from its source; pure
layer   a root file system over the one of the source, of which only what is written is the copy's own
ground  what copies of a snapshot stand on: its images and files, out of the store once for all of them
make    one copy: restored, renamed, let go
merge   equal pages of them are the kernel's to merge
keeper  the process of ours that stays with it while some of its memory is only in the images
"""
