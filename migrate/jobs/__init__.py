"""Backup jobs: files that say what is saved, how often, how long it is kept, and who hears of it.

config    a file of /etc/ocimig/jobs.d, every mistake in it at once      job      what it says, as values
plan      what a run will do, and which checks are due; pure              retention (beside this) what goes
run       does it, one step after another, and tells how each ended      backups  the repository, as a job sees it
command   hooks; ping, notify: who hears of it; secret: keys and what must not be shown
state     what earlier runs left; metrics and status are made of it       units    systemd's timer

docs/jobs.md is for administrators, docs/formats/job.md names every key.
"""
