/* Holds one thing that may be in the way of a checkpoint, says "ready", then counts. One thing a mode. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define LENGTH(array) (sizeof(array) / sizeof *(array))

static void nap(void) {
  struct timespec t = {0, 20000000};
  nanosleep(&t, NULL);
}

static void forever(void) {
  for (;;) nap();
}

/* A child that did what `act` does, or the error of that. */
static int child(int (*act)(void)) {
  int line[2];
  int failed = 0;
  if (pipe(line)) return -1;
  if (!fork()) {
    close(line[0]);
    failed = act() < 0 ? errno : 0;
    if (write(line[1], &failed, sizeof failed) != sizeof failed || failed) _exit(1);
    close(line[1]);
    forever();
  }
  close(line[1]);
  if (read(line[0], &failed, sizeof failed) != sizeof failed) failed = EIO;
  close(line[0]);
  errno = failed;
  return failed ? -1 : 0;
}

static int nothing(void) { return 0; }

/* -- objects */

static int io_uring(void) {
  char parameters[120] = {0};
  return syscall(SYS_io_uring_setup, 4, parameters);
}

static int io_uring_mapped(void) {
  int fd = io_uring();
  if (fd < 0 || mmap(NULL, 4096, RW, MAP_SHARED | MAP_POPULATE, fd, 0) == MAP_FAILED) return -1;
  return close(fd);
}

static int userfault(void) { return syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1); }

static int perf(void) {
  struct perf_event_attr what = {.type = PERF_TYPE_SOFTWARE, .size = sizeof what, .disabled = 1};
  return syscall(SYS_perf_event_open, &what, 0, -1, -1, 0);
}

static int bpf_program(void) {
  struct bpf_insn code[2] = {{.code = 0xb7}, {.code = 0x95}};
  union bpf_attr what = {.prog_type = 1, .insns = (long)code, .insn_cnt = 2, .license = (long)"GPL"};
  return syscall(SYS_bpf, BPF_PROG_LOAD, &what, sizeof what);
}

static int seccomp_listener(void) {
  struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                               BPF_JUMP(BPF_JMP | BPF_JEQ, 999, 0, 1), BPF_STMT(BPF_RET, 0x7fc00000),
                               BPF_STMT(BPF_RET, 0x7fff0000)};
  struct sock_fprog filter = {LENGTH(code), code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return syscall(SYS_seccomp, 1, 8, &filter);
}

static int landlock_ruleset(void) {
  unsigned long handled = 1;
  return syscall(444, &handled, sizeof handled, 0);
}

static int mount_context(void) { return syscall(SYS_fsopen, "tmpfs", 0); }

static int secret_memory(void) {
  int fd = syscall(447, 0);
  if (fd < 0 || ftruncate(fd, 4096)) return -1;
  char *memory = mmap(NULL, 4096, RW, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return -1;
  memory[0] = 1;
  return close(fd);
}

static int thread_pidfd(void) { return syscall(SYS_pidfd_open, getpid(), O_EXCL); }

static int packet_pipe(void) {
  int line[2];
  return pipe2(line, O_DIRECT);
}

static int device(const char *path, int major, int minor) {
  if (mknod(path, S_IFCHR | 0600, makedev(major, minor)) && errno != EEXIST) return -1;
  return open(path, O_RDWR);
}

static int kvm(void) { return device("/dev/kvm", 10, 232); }
static int loop_control(void) { return device("/dev/loop-control", 10, 237); }
static int fuse(void) { return device("/dev/fuse", 10, 229); }

static int fuse_mount(void) {
  char options[99];
  int fd = fuse();
  if (fd < 0) return -1;
  mkdir("/tmp/m", 0755);
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
  return mount("x", "/tmp/m", "fuse.x", 0, options);
}

static int tun(void) {
  struct ifreq wanted = {.ifr_name = "tun7", .ifr_flags = IFF_TUN};
  int fd = device("/dev/tun", 10, 200);
  return fd < 0 ? -1 : ioctl(fd, TUNSETIFF, &wanted);
}

static int overlay_mount(void) {
  mkdir("/dev/shm/u", 0755);
  mkdir("/dev/shm/w", 0755);
  mkdir("/tmp/m", 0755);
  return mount("o", "/tmp/m", "overlay", 0, "lowerdir=/bin,upperdir=/dev/shm/u,workdir=/dev/shm/w");
}

static int message_queue(void) {
  long limits[8] = {0, 10, 100};
  return syscall(SYS_mq_open, "q", O_CREAT | O_RDWR, 0600, limits);
}

/* -- files */

static int lock(void) { return flock(open("/tmp/l", O_CREAT | O_RDWR, 0600), LOCK_EX); }

static int lock_of_record(void) {
  struct flock wanted = {.l_type = F_WRLCK};
  return fcntl(open("/tmp/l", O_CREAT | O_RDWR, 0600), F_SETLK, &wanted);
}

static int filled(const char *path, int mebibytes) {
  static char block[1 << 20];
  int fd = open(path, O_CREAT | O_RDWR, 0600);
  memset(block, 7, sizeof block);
  for (int i = 0; i < mebibytes; i++)
    if (write(fd, block, sizeof block) != sizeof block) return -1;
  return fd;
}

static int deleted_big(void) { return filled("/tmp/d", 70) < 0 ? -1 : unlink("/tmp/d"); }
static int deleted_small(void) { return filled("/tmp/d", 1) < 0 ? -1 : unlink("/tmp/d"); }

static int deleted_mapped(void) {
  int fd = filled("/tmp/d", 70);
  if (fd < 0 || mmap(NULL, 70 << 20, RW, MAP_SHARED, fd, 0) == MAP_FAILED) return -1;
  close(fd);
  return unlink("/tmp/d");
}

static int linked(void) {
  int fd = open("/tmp/a", O_CREAT | O_RDWR, 0600);
  return fd < 0 || link("/tmp/a", "/tmp/b") ? -1 : unlink("/tmp/a");
}

static int deleted_twice(void) {
  mkdir("/tmp/q", 0700);
  int directory = open("/tmp/q", O_RDONLY), file = open("/tmp/q/f", O_CREAT | O_RDWR, 0600);
  return directory < 0 || file < 0 || unlink("/tmp/q/f") ? -1 : rmdir("/tmp/q");
}

static int watch(const char *path) {
  int fd = inotify_init1(0);
  return inotify_add_watch(fd, path, IN_ALL_EVENTS);
}

static int inotify_proc(void) { return watch("/proc/self"); }
static int inotify_pts(void) { return watch("/dev/pts"); }
static int inotify_file(void) { return watch("/bin"); }

static int inotify_deep(void) {
  mkdir("/tmp/a", 0755);
  mkdir("/tmp/a/b", 0755);
  close(open("/tmp/a/b/c", O_CREAT | O_RDWR, 0600));
  return watch("/tmp/a/b/c") < 0 ? -1 : watch("/tmp/a");
}

static int fanotify(void) {
  int fd = fanotify_init(FAN_CLASS_NOTIF, 0);
  return fd < 0 ? -1 : fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "/tmp");
}

/* -- sockets */

static int local(const char *path, int type, int listening) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, type, 0);
  strcpy(name.sun_path, path);
  if (!listening) return connect(fd, (void *)&name, sizeof name) ? -1 : fd;
  if (bind(fd, (void *)&name, sizeof name)) return -1;
  return type == SOCK_STREAM && listen(fd, 8) ? -1 : fd;
}

static int unix_outside(void) { return local("/outside/stream", SOCK_STREAM, 0); }
static int unix_outside_datagrams(void) { return local("/outside/datagrams", SOCK_DGRAM, 0); }

static int unix_waiting(void) {
  return local("/tmp/s", SOCK_STREAM, 1) < 0 ? -1 : local("/tmp/s", SOCK_STREAM, 0);
}

static int unix_pair(void) {
  int pair[2];
  return socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
}

static int socket_file(void) {
  return local("/tmp/s", SOCK_STREAM, 1) < 0 ? -1 : open("/tmp/s", O_PATH);
}

static int packet(void) { return socket(AF_PACKET, SOCK_RAW, htons(3)); }
static int raw(void) { return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static int vsock(void) { return socket(AF_VSOCK, SOCK_STREAM, 0); }
static int netlink(void) { return socket(AF_NETLINK, SOCK_RAW, 0); }

static int netlink_queue(void) {
  struct { unsigned size; unsigned short type, flags; unsigned sequence, from; char family[16]; }
  ask = {sizeof ask, 18, 0x301, 1, 0, {0}};
  return send(netlink(), &ask, sizeof ask, 0);
}

static int listener(int protocol) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(999),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, protocol);
  return fd < 0 || bind(fd, (void *)&here, sizeof here) || listen(fd, 4) ? -1 : fd;
}

static int mptcp(void) { return listener(262); }

static int not_accepted(void) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(999),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (listener(0) < 0) return -1;
  return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&here, sizeof here);
}

/* -- processes */

static int traced(void) {
  pid_t pid = fork();
  if (!pid) forever();
  return ptrace(PTRACE_SEIZE, pid, 0, 0);
}

static void *sleeper(void *nothing) {
  forever();
  return nothing;
}

static int leave_thread(void) {
  pthread_t thread;
  if (!fork()) {
    pthread_create(&thread, NULL, sleeper, NULL);
    syscall(SYS_exit, 0);
  }
  nap();
  nap();
  return 0;
}

static char stack[65536] __attribute__((aligned(16)));
static int beside(void *nothing) {
  struct timespec t = {0, 20000000};
  for (;;) syscall(SYS_nanosleep, &t, 0);
  return nothing != 0;
}

static int shared_memory_space(void) {
  return clone(beside, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
}

static int set_deadline(void) {
  struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long run, end, every; }
  wanted = {48, 6, 0, 0, 0, 1000000, 10000000, 10000000};
  return syscall(SYS_sched_setattr, 0, &wanted, 0);
}

static int deadline(void) { return child(set_deadline); }

static int own_user(void) { return unshare(CLONE_NEWUSER); }
static int own_uts(void) { return unshare(CLONE_NEWUTS); }
static int own_ipc(void) { return unshare(CLONE_NEWIPC); }
static int own_mount(void) { return unshare(CLONE_NEWNS); }
static int nested_user(void) { return child(own_user); }
static int nested_uts(void) { return child(own_uts); }
static int nested_ipc(void) { return child(own_ipc); }
static int nested_mount(void) { return child(own_mount); }
static int nested_pid(void) { return unshare(CLONE_NEWPID) ? -1 : child(nothing); }

static int lost_namespace(void) {
  char path[64];
  pid_t pid = fork();
  if (!pid) {
    unshare(CLONE_NEWNET);
    forever();
  }
  nap();
  nap();
  snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
  int fd = open(path, O_RDONLY);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  return fd;
}

static int shared_segment(void) {
  int id = shmget(77, 8192, IPC_CREAT | 0600);
  return id < 0 || shmat(id, NULL, 0) == (void *)-1 ? -1 : 0;
}

#define MODE(name) {#name, name}
static const struct {
  const char *name;
  int (*hold)(void);
} modes[] = {
    MODE(nothing), MODE(io_uring), MODE(io_uring_mapped), MODE(userfault), MODE(perf),
    MODE(bpf_program), MODE(seccomp_listener), MODE(landlock_ruleset), MODE(mount_context),
    MODE(secret_memory), MODE(thread_pidfd), MODE(packet_pipe), MODE(kvm), MODE(loop_control),
    MODE(fuse), MODE(fuse_mount), MODE(tun), MODE(overlay_mount), MODE(message_queue), MODE(lock),
    MODE(lock_of_record), MODE(deleted_big), MODE(deleted_small), MODE(deleted_mapped), MODE(linked),
    MODE(deleted_twice), MODE(inotify_proc), MODE(inotify_pts), MODE(inotify_file), MODE(inotify_deep), MODE(fanotify),
    MODE(unix_outside), MODE(unix_outside_datagrams), MODE(unix_waiting), MODE(unix_pair),
    MODE(socket_file), MODE(packet), MODE(raw), MODE(vsock), MODE(netlink), MODE(netlink_queue),
    MODE(mptcp), MODE(not_accepted), MODE(traced), MODE(leave_thread), MODE(shared_memory_space),
    MODE(deadline), MODE(nested_user), MODE(nested_uts), MODE(nested_ipc), MODE(nested_mount),
    MODE(nested_pid), MODE(lost_namespace), MODE(shared_segment),
};

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (size_t i = 0; argc > 1 && i < LENGTH(modes); i++) {
    if (strcmp(modes[i].name, argv[1])) continue;
    if (modes[i].hold() < 0) {
      printf("cannot: %s\n", strerror(errno));
      return 1;
    }
    printf("ready\n");
    for (unsigned long number = 0;; number++) {
      printf("%lu ready\n", number);
      nap();
    }
  }
  return 2;
}
