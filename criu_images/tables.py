"""The fields of CRIU's images that are read here, and the magic of each kind. Data only.

From images/*.proto and criu/include/magic.h of CRIU 4.2; names are CRIU's.
"""

from ocimig.criu_images.fields import Table

COMMON, SERVICE = 0x54564319, 0x55105940
MAGICS = {
    "inventory": 0x58313116, "pstree": 0x50273030, "fdinfo": 0x56213732, "pagemap": 0x56084025,
    "core": 0x55053847, "ids": 0x54432030, "utsns": 0x54473203, "fs": 0x51403912, "mm": 0x57492820,
    "mountpoints": 0x55563928, "tty-info": 0x59453036, "cgroup": 0x59383330, "userns": 0x55474906,
    "seccomp": 0x64413049, "files": 0x56303138, "memfd": 0x48453499, "timens": 0x43114433,
    "stats": 0x57093306,
}  # fmt: skip

IDS = Table(
    "vm_id=1 files_id=2 fs_id=3 sighand_id=4 pid_ns_id=5 net_ns_id=6 ipc_ns_id=7 uts_ns_id=8 "
    "mnt_ns_id=9 user_ns_id=10 cgroup_ns_id=11 time_ns_id=12"
)
INVENTORY = Table(
    "img_version=1 root_ids=3:ids root_cg_set=5 lsmtype=6 dump_uptime=8 tcp_close=10", ids=IDS
)
PSTREE = Table("pid=1 ppid=2 pgid=3 sid=4 threads=5*")

_CREDS = Table(
    "uid=1 gid=2 euid=3 egid=4 suid=5 sgid=6 fsuid=7 fsgid=8 cap_inh=9* cap_prm=10* cap_eff=11* "
    "cap_bnd=12* secbits=13 groups=14* lsm_profile=15:t no_new_privs=18 cap_amb=19*"
)
_RLIMITS = Table("rlimits=1:limit*", limit=Table("cur=1 max=2"))
THREAD = Table(
    "sched_nice=3:s sched_policy=4 sched_prio=5 blk_sigset=6 creds=10:creds seccomp_mode=11 "
    "seccomp_filter=12 comm=13:t cg_set=16",
    creds=_CREDS,
)
_TASK = Table(
    "task_state=1 exit_code=2 personality=3 flags=4 comm=6:t rlimits=8:limits cg_set=9 "
    "old_seccomp_mode=11 loginuid=13 oom_score_adj=14:i child_subreaper=18 stop_signo=21",
    limits=_RLIMITS,
)
X86_REGISTERS = (
    "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss fs_base gs_base "
    "ds es fs gs"
).split()
_X86 = Table(
    "gpregs=2:registers fpregs=3:floating",
    registers=Table(
        " ".join(f"{name}={n}" for n, name in enumerate(X86_REGISTERS, 1)) + " mode=28"
    ),
    floating=Table(
        "cwd=1 swd=2 twd=3 fop=4 rip=5 rdp=6 mxcsr=7 mxcsr_mask=8 st_space=9* xmm_space=10*"
    ),
)
_AARCH64 = Table("gpregs=3:registers", registers=Table("regs=1* sp=2 pc=3 pstate=4"))
CORE = Table(
    "mtype=1 thread_info=2:x86 tc=3:task ids=4:ids thread_core=5:thread ti_aarch64=8:aarch64",
    x86=_X86, task=_TASK, ids=IDS, thread=THREAD, aarch64=_AARCH64,
)  # fmt: skip

MM = Table(
    "mm_start_code=1 mm_end_code=2 mm_start_data=3 mm_end_data=4 mm_start_stack=5 mm_start_brk=6 "
    "mm_brk=7 mm_arg_start=8 mm_arg_end=9 mm_env_start=10 mm_env_end=11 exe_file_id=12 "
    "mm_saved_auxv=13* dumpable=15:i"
)
MM_STACK = 5
MM_VMAS = 14  # read one by one, there may be very many
VMA = Table("start=1 end=2 pgoff=3 shmid=4 prot=5 flags=6 status=7 madv=9 fdflags=10")

FDINFO = Table("id=1 flags=2 type=3 fd=4")
FS = Table("cwd_id=1 root_id=2 umask=3")
_INET = Table(
    "ino=2 family=3 type=4 proto=5 state=6 src_port=7 dst_port=8 flags=9 backlog=10 src_addr=11* "
    "dst_addr=12* v6only=15 ifname=17:t ns_id=18 shutdown=19"
)
_UNIX = Table(
    "ino=2 type=3 state=4 flags=5 uflags=6 backlog=7 peer=8 name=11:b shutdown=12 name_dir=14:t "
    "deleted=15 ns_id=16"
)
_WATCH = Table(
    "i_ino=2 mask=3 s_dev=5 wd=6 f_handle=7:handle", handle=Table("bytes=1 type=2 path=4:t")
)
_MARK = Table("type=2 mask=4 s_dev=6")
FILE = Table(
    "type=1 id=2 reg=3:reg isk=4:inet nsf=5:ns psk=6:packet nlsk=7:netlink efd=8:eventfd "
    "epfd=9:epoll sgfd=10:signalfd tunf=11:tun tfd=12:timerfd ify=13:inotify ffy=14:fanotify "
    "ext=15:ext usk=16:unix fifo=17:fifo pipe=18:pipe tty=19:tty memfd=20:memfd bpf=21:bpf "
    "pidfd=22:pidfd",
    reg=Table("id=1 flags=2 pos=3 name=6:t mnt_id=7:s size=8 ext=9 mode=10"),
    inet=_INET, unix=_UNIX,
    ns=Table("ns_id=2 ns_cflag=3 flags=4"),
    packet=Table("type=2 protocol=3 flags=4 ifindex=5 ns_id=20"),
    netlink=Table("ino=2 protocol=3 state=4 flags=6 portid=7 groups=8* dst_portid=9 dst_group=10"),
    eventfd=Table("flags=2 counter=4"),
    epoll=Table("flags=2 tfd=4:target*", target=Table("id=1 tfd=2 events=3 data=4")),
    signalfd=Table("flags=2 sigmask=4"),
    tun=Table("netdev=2:t detached=3 ns_id=4"),
    timerfd=Table(
        "flags=2 clockid=4 ticks=5 settime_flags=6 vsec=7 vnsec=8 isec=9 insec=10"
    ),
    inotify=Table("flags=2 wd=5:watch*", watch=_WATCH),
    fanotify=Table("flags=2 faflags=4 mark=6:mark*", mark=_MARK),
    ext=Table("id=1"),
    fifo=Table("pipe_id=2 regf_id=3"),
    pipe=Table("pipe_id=2 flags=3"),
    tty=Table("tty_info_id=2 flags=3 regf_id=6"),
    memfd=Table("flags=2 pos=3 inode_id=5"),
    bpf=Table("flags=2 map_type=5 map_id=8 max_entries=9 map_name=13:t"),
    pidfd=Table("ino=2 flags=3 nspid=4:i"),
)  # fmt: skip
TTY_INFO = Table("id=1 type=2 sid=6 pgrp=7 rdev=8 pty=12:pty", pty=Table("index=1"))
MEMFD = Table("name=1:t uid=2 gid=3 size=4 shmid=5 seals=6 inode_id=7 mode=9")
MOUNT = Table(
    "fstype=1 mnt_id=2 root_dev=3 parent_mnt_id=4 flags=5 root=6:t mountpoint=7:t source=8:t "
    "options=9:t shared_id=10 master_id=11 with_plugin=12 ext_mount=13 fsname=14:t deleted=16 "
    "sb_flags=17 ext_key=18:t"
)

_CGROUP_DIR = Table("dir_name=1:t properties=3:property*", property=Table("name=1:t value=2:t"))
_CGROUP_DIR.add("children", 2, "directory", _CGROUP_DIR, many=True)
CGROUP = Table(
    "sets=1:set* controllers=2:controller*",
    set=Table("id=1 ctls=2:member*", member=Table("name=1:t path=2:t")),
    controller=Table("cnames=1:t* dirs=2:directory*", directory=_CGROUP_DIR),
)
UTSNS = Table("nodename=1:t domainname=2:t")
_EXTENT = Table("first=1 lower_first=2 count=3")
USERNS = Table("uid_map=1:extent* gid_map=2:extent*", extent=_EXTENT)
_TIMESPEC = Table("tv_sec=1 tv_nsec=2")
TIMENS = Table("monotonic=1:time boottime=2:time", time=_TIMESPEC)
SECCOMP = Table("seccomp_filters=1:filter*", filter=Table("filter=1:b prev=2 flags=3"))
STATS = Table(
    "dump=1:dump restore=2:restore",
    dump=Table(
        "freezing_time=1 frozen_time=2 memdump_time=3 memwrite_time=4 pages_scanned=5 "
        "pages_skipped_parent=6 pages_written=7 irmap_resolve=8 pages_lazy=9 page_pipes=10 "
        "page_pipe_bufs=11 shpages_scanned=12 shpages_skipped_parent=13 shpages_written=14"
    ),
    restore=Table(
        "pages_compared=1 pages_skipped_cow=2 forking_time=3 restore_time=4 pages_restored=5"
    ),
)
