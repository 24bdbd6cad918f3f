"""Checkpoints as one file that others can read and write: podman's and CRI-O's archive, OCI images.

    plan = planning.plan(fd, rules)             # reads all of it, writes nothing, can be printed
    extract.extract(fd, plan, directory)        # does that and nothing else, or leaves nothing

    tarfile     headers, members                the form of a tar archive, read and written
    packing                                     zstd, gzip, none; bounded
    planning    rules, extract, apply           what an archive may do here, and doing it
    difference                                  a root file system against the one it was made from
    content     asks, importing, exporting      a checkpoint in an archive, and what it asks of a host
    manifest    signature                       what is in it, and who says so
    oci                                         the same as an image

docs/formats/archive.md has the formats and what a reader refuses.
"""
