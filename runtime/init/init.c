/*
 * ocimig-init: the last stage of a container's start, and the only code of ocimig that runs inside
 * its namespaces. It decides nothing. The launcher (runtime/launch.py) hands it a list of steps over
 * a socket; it carries them out in order and becomes the container's process. It runs from a sealed
 * memfd, so that nothing inside can overwrite it, and touches the container's files only through
 * descriptors that openat2(2) resolved inside the root.
 *
 * argv: ocimig-init SOCKET FIRST, where SOCKET is the descriptor of the launcher's stream and every
 * descriptor from FIRST on is closed. The bytes on the socket are described in runtime/sync.py, the
 * steps in runtime/steps.py: one OP_ here for one class there.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MS_REC /* <sys/mount.h> and <linux/mount.h> cannot be included together with older glibc */
#define MS_REC 16384
#endif
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MNT_DETACH 2
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#define FD_BATCH 200 /* descriptors a message; the kernel's limit is 253 (SCM_MAX_FD) */
#define PLAN_MAX (64u << 20)

enum op {
	OP_JOIN = 1, OP_UNSHARE, OP_SYNC, OP_FORK, OP_WRITE, OP_BECOME_ROOT, OP_SETSID, OP_KEYRING,
	OP_HOSTNAME, OP_LOOPBACK, OP_PROPAGATE, OP_ROOT, OP_MOUNT, OP_BIND, OP_SYMLINK, OP_DEVICE,
	OP_MASK, OP_READONLY, OP_ATTR, OP_CONSOLE, OP_PIVOT, OP_HOOK, OP_MKDIR, OP_CWD,
	OP_CREDENTIALS, OP_UMASK, OP_NO_NEW_PRIVS, OP_SECCOMP, OP_PERSONALITY, OP_SCHEDULER,
	OP_IOPRIO, OP_LOOKUP, OP_READY, OP_WAIT_FIFO, OP_EXEC, OP_EXIT, OP_OPEN, OP_ENTER_CGROUP,
	OP_HOME, OP_LAST
};
enum message { MSG_SYNC = 1, MSG_PID, MSG_FD, MSG_ERROR, MSG_WARNING };

static int sock = -1, rootfd = -1, step_number;
static int *fds, nfds, room, first_fd; /* descriptors that steps name by their place */
static char *state_json = "";
static uint32_t state_length;
static char executable[PATH_MAX], home[PATH_MAX] = "HOME=/";
static int cwd_set;

struct reader { char *at, *end; };

static void send_message(uint32_t type, const void *data, uint32_t length, int fd)
{
	struct { uint32_t type, length; } head = { type, length };
	struct iovec iov[2] = { { &head, sizeof head }, { (void *)data, length } };
	union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd >= 0) {
		memset(&control, 0, sizeof control);
		message.msg_control = &control;
		message.msg_controllen = sizeof control.space;
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	if (sock < 0 || sendmsg(sock, &message, MSG_NOSIGNAL) != (ssize_t)(sizeof head + length))
		_exit(1); /* the launcher is gone: nobody waits for this container */
}

/* Say which step failed, why, and about what; then end. */
static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	struct { int32_t step, error; char text[1024]; } report = { step_number, errno, "" };
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(report.text, sizeof report.text, format, arguments);
	va_end(arguments);
	if (sock >= 0)
		send_message(MSG_ERROR, &report, 8 + strlen(report.text), -1);
	else
		dprintf(2, "ocimig-init: %s: %s\n", report.text, strerror(report.error));
	_exit(1);
}

static void read_exactly(void *data, size_t length)
{
	for (char *at = data; length;) {
		ssize_t n = read(sock, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		at += n;
		length -= n;
	}
}

/* Close all but 0-2, what the caller preserves, the socket, and one more. */
static void close_others(int keep)
{
	int low = keep < sock ? keep : sock, high = keep < sock ? sock : keep;

	if (low > first_fd)
		syscall(SYS_close_range, first_fd, low - 1, 0);
	if (high > low + 1)
		syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, ~0u, 0);
}

static uint64_t num(struct reader *r)
{
	uint64_t value;

	if (r->end - r->at < 8)
		errno = EPROTO, fail("the plan is cut short");
	memcpy(&value, r->at, 8);
	r->at += 8;
	return value;
}

static char *blob(struct reader *r, uint64_t *length)
{
	*length = num(r);
	if (*length >= (uint64_t)(r->end - r->at) || r->at[*length] != 0)
		errno = EPROTO, fail("the plan is cut short");
	char *data = r->at;
	r->at += *length + 1;
	return data;
}

static char *str(struct reader *r)
{
	uint64_t length;
	return blob(r, &length);
}

static char **strings(struct reader *r)
{
	uint64_t count = num(r);
	if (count > (uint64_t)(r->end - r->at))
		errno = EPROTO, fail("the plan is cut short");
	char **list = calloc(count + 1, sizeof *list);
	if (!list)
		fail("out of memory");
	for (uint64_t i = 0; i < count; i++)
		list[i] = str(r);
	return list;
}

static int fd_of(struct reader *r)
{
	uint64_t index = num(r);
	if (index >= (uint64_t)nfds)
		errno = EPROTO, fail("the plan names a descriptor that did not come");
	return fds[index];
}

/* ---- kernel calls without a wrapper in older C libraries ---- */

static int open_how(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
	int fd;

	do /* EAGAIN: a rename raced with the walk; openat2(2) says to try again */
		fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
	while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd;
}

static int attach(int tree, int target)
{
	return syscall(SYS_move_mount, tree, "", target, "",
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static int set_attr(int fd, uint64_t set, uint64_t clear, uint64_t propagation, int recursive)
{
	struct mount_attr attr = { .attr_set = set, .attr_clr = clear, .propagation = propagation };

	if (!set && !clear && !propagation)
		return 0;
	if ((set | clear) & MOUNT_ATTR__ATIME)
		attr.attr_clr |= MOUNT_ATTR__ATIME;
	return syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0),
		       &attr, sizeof attr);
}

/* ---- paths inside the root ---- */

#define INSIDE (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

static int inside(const char *path, uint64_t flags, uint64_t resolve)
{
	return open_how(rootfd, *path ? path : "/", flags, INSIDE | resolve);
}

/*
 * Open `path` inside the root, making what is missing: directories on the way, and at the end a
 * directory or (is_dir == 0) an empty file. A dangling link is followed by hand, inside the root.
 */
static int make_inside(const char *wanted, int is_dir, mode_t mode)
{
	char path[PATH_MAX], link[PATH_MAX], rest[PATH_MAX];
	int fd, links = 0;

	if (strlen(wanted) >= sizeof path)
		return errno = ENAMETOOLONG, -1;
	strcpy(path, wanted);
	if ((fd = inside(path, O_PATH, 0)) >= 0 || errno != ENOENT)
		return fd;
again:
	for (char *at = path, *end; ; at = end) {
		at += strspn(at, "/");
		end = at + strcspn(at, "/");
		int last = end[strspn(end, "/")] == 0;
		char saved = *end;

		if (at == end)
			return inside(path, O_PATH, 0);
		*end = 0;
		fd = inside(path, O_PATH, 0);
		if (fd >= 0) {
			*end = saved;
			if (last)
				return fd;
			close(fd);
			continue;
		}
		if (errno != ENOENT)
			return -1;
		char name[NAME_MAX + 1];
		if (end - at > NAME_MAX)
			return errno = ENAMETOOLONG, -1;
		memcpy(name, at, end - at + 1);
		char keep = *at;
		*at = 0;
		int parent = inside(path, O_PATH | O_DIRECTORY, 0);
		*at = keep;
		if (parent < 0)
			return -1;
		int r = !last || is_dir ? mkdirat(parent, name, last ? mode : 0755)
					: mknodat(parent, name, S_IFREG | mode, 0);
		if (r == 0 && last) {
			fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
			close(parent);
			return fd;
		}
		if (r < 0 && errno == EEXIST) { /* a dangling link: go on with what it names */
			ssize_t n = readlinkat(parent, name, link, sizeof link - 1);
			close(parent);
			if (n <= 0 || ++links > 40)
				return errno = n <= 0 ? ENOENT : ELOOP, -1;
			link[n] = 0;
			*end = saved;
			strcpy(rest, end);
			*at = 0;
			if (snprintf(end = link + n, sizeof link - n, "%s", rest) >= (int)(sizeof link - n))
				return errno = ENAMETOOLONG, -1;
			if (link[0] == '/')
				strcpy(path, link);
			else if (snprintf(rest, sizeof rest, "%s%s", path, link) >= (int)sizeof rest)
				return errno = ENAMETOOLONG, -1;
			else
				strcpy(path, rest);
			goto again;
		}
		int error = errno;
		close(parent);
		*end = saved;
		if (r < 0)
			return errno = error, -1;
	}
}

/* Make the directory that holds `path` and say the last name of it. */
static int make_parent(const char *path, const char **name)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');

	*name = slash ? slash + 1 : path;
	if (!slash || strlen(path) >= sizeof parent)
		return slash ? (errno = ENAMETOOLONG, -1) : dup(rootfd);
	memcpy(parent, path, slash - path);
	parent[slash - path] = 0;
	return make_inside(parent, 1, 0755);
}

static int is_dir(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* A path below /proc of the host, checked to be procfs: nothing else may stand there. */
static void write_proc(const char *path, const char *data, size_t length)
{
	struct statfs fs;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		fail("open %s", path);
	if (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
		errno = EXDEV, fail("%s is not procfs", path);
	if (write(fd, data, length) != (ssize_t)length)
		fail("write %s to %s", data, path);
	close(fd);
}

/* ---- steps ---- */

static void wait_for_go(uint32_t code)
{
	uint32_t length;

	send_message(MSG_SYNC, &code, sizeof code, -1);
	read_exactly(&length, sizeof length);
	if (length > PLAN_MAX)
		errno = EPROTO, fail("the launcher's answer is too long");
	if (length) { /* the state of the container, for hooks */
		state_json = malloc(length);
		if (!state_json)
			fail("out of memory");
		read_exactly(state_json, length);
		state_length = length;
	}
}

enum kind { KIND_TREE = 1, KIND_NULL, KIND_PATH, KIND_NAMESPACE };

/*
 * Open what a later step needs, while we are still in the host's namespaces and have all its rights:
 * a bind mount's source may lie where the container's root may not look.
 */
static void do_open(struct reader *r)
{
	uint64_t kind = num(r);
	char *path = str(r);
	int flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, fd;
	struct stat st;

	if (num(r))
		flags |= AT_RECURSIVE;
	if (kind == KIND_TREE || kind == KIND_NULL)
		fd = syscall(SYS_open_tree, AT_FDCWD, path, flags);
	else
		fd = open(path, (kind == KIND_PATH ? O_PATH : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		fail("open %s", path);
	if (kind == KIND_NULL && (fstat(fd, &st) < 0 || st.st_rdev != makedev(1, 3)))
		errno = ENODEV, fail("%s is not the null device", path);
	if (nfds == room)
		errno = EPROTO, fail("the plan opens more than it said");
	fds[nfds++] = fd;
}

/* One thread that moves itself needs no lock of the kernel's; see runtime/cgroups. */
static void do_enter_cgroup(struct reader *r)
{
	char *path = str(r), *value = str(r);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		fail("join cgroup %s", path);
	close(fd);
}

static void do_fork(struct reader *r)
{
	/* CLONE_PARENT: the container's process is a child of the launcher, which can wait for it. */
	struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
		 set_tid_size, cgroup; } how = { .flags = CLONE_PARENT, .exit_signal = 0 };
	char *path = str(r);
	int cgroup = *path ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	int32_t answer[2] = { -1, 0 };

	if (cgroup >= 0) {
		how.flags |= 0x200000000ULL; /* CLONE_INTO_CGROUP, Linux 5.7 */
		how.cgroup = cgroup;
		answer[0] = syscall(SYS_clone3, &how, sizeof how);
		answer[1] = answer[0] > 0;
	}
	if (answer[0] < 0) /* refused: the launcher moves the child, if it wants to */
		answer[0] = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (answer[0] < 0)
		fail("clone");
	if (answer[0] > 0) {
		send_message(MSG_PID, answer, sizeof answer, -1);
		_exit(0);
	}
	close(cgroup);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void do_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (s < 0 || ioctl(s, SIOCSIFFLAGS, &request) < 0)
		fail("bring up lo");
	close(s);
}

static void do_root(struct reader *r)
{
	int tree = fd_of(r), mounted = num(r);
	uint64_t propagation = num(r);

	if (mounted) {
		if (set_attr(tree, 0, 0, propagation, 1) < 0)
			fail("set the propagation of the root");
		int top = open("/", O_PATH | O_CLOEXEC);
		if (top < 0 || attach(tree, top) < 0)
			fail("mount the root file system");
		close(top);
	}
	rootfd = tree;
	if (fchdir(rootfd) < 0)
		fail("enter the root file system");
}

static int copy_tree(int from, int to)
{
	DIR *dir = fdopendir(dup(from));
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		struct stat st;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return -1;
		if (S_ISDIR(st.st_mode)) {
			int a = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			int b = mkdirat(to, name, 0700);
			b = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (a < 0 || b < 0 || copy_tree(a, b) < 0)
				return -1;
			close(a), close(b);
		} else if (S_ISLNK(st.st_mode)) {
			char target[PATH_MAX];
			ssize_t n = readlinkat(from, name, target, sizeof target - 1);
			if (n < 0 || (target[n] = 0, symlinkat(target, to, name)) < 0)
				return -1;
		} else if (S_ISREG(st.st_mode)) {
			char buffer[65536];
			ssize_t n;
			int a = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
			int b = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
			if (a < 0 || b < 0)
				return -1;
			while ((n = read(a, buffer, sizeof buffer)) > 0)
				if (write(b, buffer, n) != n)
					return -1;
			close(a), close(b);
			if (n < 0)
				return -1;
		} else if (mknodat(to, name, st.st_mode, st.st_rdev) < 0) {
			return -1;
		}
		struct timespec times[2] = { st.st_atim, st.st_mtim };
		if (fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
		    (!S_ISLNK(st.st_mode) && fchmodat(to, name, st.st_mode & 07777, 0) < 0) ||
		    utimensat(to, name, times, AT_SYMLINK_NOFOLLOW) < 0)
			return -1;
	}
	if (!dir)
		return -1;
	closedir(dir);
	return 0;
}

static int new_mount(const char *type, const char *source, char **options, uint64_t attributes)
{
	int fs = syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), n;
	char why[512];

	if (fs < 0)
		fail("file system type %s", type);
	if (*source && syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		fail("%s: source %s", type, source);
	for (; *options; options++) {
		char *value = strchr(*options, '=');
		if (value)
			*value++ = 0;
		if (syscall(SYS_fsconfig, fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, *options,
			    value, 0) < 0)
			goto refused;
	}
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0) < 0)
		goto refused;
	int tree = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
	if (tree < 0)
		fail("%s", type);
	close(fs);
	return tree;
refused:
	n = errno; /* the file system's own words, where it has some: "e tmpfs: Bad value for 'size'" */
	ssize_t length = read(fs, why, sizeof why - 1);
	errno = n;
	if (length > 2)
		why[length] = 0, fail("%s", why + 2);
	fail("%s: option %s", type, *options ? *options : "");
}

static void do_mount(struct reader *r)
{
	char *type = str(r), *source = str(r), *target = str(r), **options = strings(r);
	uint64_t attributes = num(r), propagation = num(r), copy_up = num(r), plain = num(r);
	int to = make_inside(target, 1, 0755);

	if (to < 0)
		fail("mount point %s", target);
	if (plain) { /* CVE-2019-16884, CVE-2023-27561: /proc and /sys only on a real directory */
		int real = inside(target, O_PATH | O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
		if (real < 0 || !is_dir(real))
			errno = ENOTDIR, fail("%s must be mounted on an ordinary directory", target);
		close(to);
		to = real;
	}
	int tree = new_mount(type, source, options, copy_up ? attributes & ~MOUNT_ATTR_RDONLY : attributes);
	if (copy_up) {
		int old = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		int new = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct stat st;
		if (old < 0 || new < 0 || copy_tree(old, new) < 0 || fstat(old, &st) < 0 ||
		    fchown(new, st.st_uid, st.st_gid) < 0 || fchmod(new, st.st_mode & 07777) < 0)
			fail("copy %s up into the tmpfs", target);
		close(old), close(new);
		if (set_attr(tree, attributes & MOUNT_ATTR_RDONLY, 0, 0, 0) < 0)
			fail("make %s read-only", target);
	}
	if (attach(tree, to) < 0)
		fail("mount %s on %s", type, target);
	if (set_attr(tree, 0, 0, propagation, 0) < 0)
		fail("propagation of %s", target);
	close(tree), close(to);
}

static void do_bind(struct reader *r)
{
	int tree = fd_of(r);
	char *target = str(r);
	uint64_t set = num(r), clear = num(r), all_set = num(r), all_clear = num(r);
	uint64_t propagation = num(r), recursive = num(r);
	int to = make_inside(target, is_dir(tree), is_dir(tree) ? 0755 : 0644);

	if (to < 0)
		fail("mount point %s", target);
	if (is_dir(to) != is_dir(tree))
		errno = is_dir(tree) ? ENOTDIR : EISDIR, fail("mount point %s", target);
	if (set_attr(tree, set, clear, 0, 0) < 0 || set_attr(tree, all_set, all_clear, 0, 1) < 0)
		fail("options of the mount on %s", target);
	if (set_attr(tree, 0, 0, propagation, recursive) < 0)
		fail("propagation of %s", target);
	if (attach(tree, to) < 0)
		fail("bind on %s", target);
	close(to);
}

static void do_symlink(struct reader *r)
{
	char *content = str(r), *path = str(r);
	const char *name;
	int parent = make_parent(path, &name);

	if (parent < 0 || (symlinkat(content, parent, name) < 0 && errno != EEXIST))
		fail("link %s", path);
	close(parent);
}

static void do_device(struct reader *r)
{
	char *path = str(r);
	mode_t mode = num(r);
	dev_t device = num(r);
	uid_t uid = num(r);
	gid_t gid = num(r);
	const char *name;
	struct stat st;
	int parent = make_parent(path, &name);

	if (parent < 0)
		fail("device %s", path);
	if (mknodat(parent, name, mode, device) < 0 && errno != EEXIST)
		fail("mknod %s", path);
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		fail("device %s", path);
	if ((st.st_mode & S_IFMT) != (mode & S_IFMT) || (!S_ISFIFO(mode) && st.st_rdev != device))
		errno = EEXIST, fail("%s stands in the way of a device", path);
	if (fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fchmodat(parent, name, mode & 07777, 0) < 0)
		fail("owner and mode of %s", path);
	close(parent);
}

/*
 * A directory is hidden by one empty read-only tmpfs that all of them share, a file by /dev/null.
 * Only a mount that is attached here can be copied, so the first use attaches, the others copy that.
 */
static void do_mask(struct reader *r)
{
	static int empty = -1, used[2];
	char size[] = "nr_blocks=1", inodes[] = "nr_inodes=1", *options[] = { size, inodes, 0 };
	char *path = str(r);
	int null = fd_of(r), to = inside(path, O_PATH, 0), directory, tree;

	if (to < 0 && (errno == ENOENT || errno == ENOTDIR))
		return;
	if (to < 0)
		fail("mask %s", path);
	directory = is_dir(to);
	if (directory && empty < 0)
		empty = new_mount("tmpfs", "tmpfs", options, MOUNT_ATTR_RDONLY);
	tree = directory ? empty : null;
	if (used[directory])
		tree = syscall(SYS_open_tree, tree, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0 || attach(tree, to) < 0)
		fail("mask %s", path);
	if (used[directory])
		close(tree);
	used[directory] = 1;
	close(to);
}

static void do_readonly(struct reader *r)
{
	char *path = str(r);
	int to = inside(path, O_PATH, 0), tree;

	if (to < 0 && (errno == ENOENT || errno == ENOTDIR))
		return;
	tree = to < 0 ? -1 : (int)syscall(SYS_open_tree, to, "", AT_EMPTY_PATH | AT_RECURSIVE |
					  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0 || set_attr(tree, MOUNT_ATTR_RDONLY, 0, 0, 0) < 0 || attach(tree, to) < 0)
		fail("make %s read-only", path);
	close(tree), close(to);
}

/* CVE-2025-52565: the terminal is made in the container's own devpts and taken by TIOCGPTPEER. */
static void do_console(struct reader *r)
{
	struct winsize size = { .ws_row = num(r), .ws_col = num(r) };
	uint64_t bind_console = num(r);
	int uid = num(r), unlock = 0, dir = inside("/dev/pts", O_PATH | O_DIRECTORY, 0);
	struct statfs fs;

	if (dir < 0 || fstatfs(dir, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
		errno = ENOTTY, fail("a terminal needs a devpts mount on /dev/pts");
	int master = open_how(dir, "ptmx", O_RDWR | O_NOCTTY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		fail("open /dev/pts/ptmx");
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		fail("TIOCGPTPEER");
	if (size.ws_row && ioctl(master, TIOCSWINSZ, &size) < 0)
		fail("TIOCSWINSZ");
	if (fchown(slave, uid, -1) < 0 && errno != EINVAL && errno != EPERM)
		fail("owner of the terminal");
	if (bind_console) {
		int to = make_inside("/dev/console", 0, 0600);
		int tree = syscall(SYS_open_tree, slave, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (to < 0 || tree < 0 || attach(tree, to) < 0)
			fail("bind the terminal on /dev/console");
		close(to), close(tree);
	}
	uint32_t code = 1;
	send_message(MSG_FD, &code, sizeof code, master);
	close(master), close(dir);
	if (ioctl(slave, TIOCSCTTY, 0) < 0)
		fail("TIOCSCTTY");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slave, fd) < 0)
			fail("dup2");
	close(slave);
}

static void do_pivot(uint64_t how)
{
	if (fchdir(rootfd) < 0)
		fail("enter the root file system");
	if (how == 0) {
		if (syscall(SYS_pivot_root, ".", ".") < 0)
			fail("pivot_root");
		/* The old root lies on top of the new one now; unmounting "." takes it away. */
		if (umount2(".", MNT_DETACH) < 0)
			fail("detach the old root");
	} else if (chroot(".") < 0) {
		fail("chroot");
	}
	if (chdir("/") < 0)
		fail("chdir /");
	close(rootfd);
	if ((rootfd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
		fail("open /");
}

static void do_hook(struct reader *r)
{
	char *what = str(r), *path = str(r), **argv = strings(r), **env = strings(r);
	int64_t timeout = num(r), pid;
	int in[2], status;
	struct timespec start, now;

	signal(SIGPIPE, SIG_IGN);
	if (pipe2(in, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		fail("%s hook", what);
	if (pid == 0) {
		setpgid(0, 0);
		signal(SIGPIPE, SIG_DFL);
		dup2(in[0], 0);
		execve(path, argv, env);
		_exit(errno == ENOENT ? 127 : 126);
	}
	close(in[0]);
	fcntl(in[1], F_SETFL, O_NONBLOCK); /* a hook that does not read must not stop us */
	for (uint32_t sent = 0; sent < state_length;) {
		ssize_t n = write(in[1], state_json + sent, state_length - sent);
		struct pollfd p = { in[1], POLLOUT, 0 };
		if (n < 0 && (errno != EAGAIN || poll(&p, 1, timeout ? timeout : -1) <= 0))
			break;
		sent += n > 0 ? n : 0;
	}
	close(in[1]);
	clock_gettime(CLOCK_MONOTONIC, &start);
	while ((errno = 0, waitpid(pid, &status, timeout ? WNOHANG : 0)) != pid) {
		if (errno && errno != EINTR)
			fail("%s hook %s", what, path);
		clock_gettime(CLOCK_MONOTONIC, &now);
		int64_t passed = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
		if (timeout && passed > timeout) {
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			errno = ETIMEDOUT, fail("%s hook %s", what, path);
		}
		usleep(2000);
	}
	signal(SIGPIPE, SIG_DFL);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		errno = code == 127 ? ENOENT : 0, fail("%s hook %s: exit status %d", what, path, code);
	}
}

static void do_cwd(struct reader *r)
{
	char *path = str(r), now[PATH_MAX];
	uint64_t strict = num(r);

	if (cwd_set)
		return;
	close(rootfd); /* not even our own root may be reached through /proc/self/fd */
	rootfd = -1;
	if (chdir(path) < 0) {
		if (!strict && errno == EACCES)
			return; /* root without CAP_DAC_OVERRIDE may be refused what the user may enter */
		fail("chdir to cwd (%s) set in config.json failed", path);
	}
	/* CVE-2024-21626: a directory outside of the root has no path here. The bare system call says so. */
	if (syscall(SYS_getcwd, now, sizeof now) < 0 || now[0] != '/')
		errno = ENOENT, fail("the working directory %s is outside of the container", path);
	cwd_set = 1;
}

/*
 * The home directory in the container's own /etc/passwd, read as text: looking a user up by the C
 * library would load code from the container (CVE-2019-14271).
 */
static void do_home(unsigned uid)
{
	char text[65536], *line, *next;
	int fd = open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	ssize_t length = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, text, sizeof text - 1) : 0;

	close(fd);
	text[length > 0 ? length : 0] = 0;
	for (line = text; line; line = next) {
		char *field[6] = { line };
		int fields = 1;
		if ((next = strchr(line, '\n')))
			*next++ = 0;
		for (char *at = line; fields < 6 && (at = strchr(at, ':')); *at++ = 0)
			field[fields++] = at + 1;
		if (fields < 6 || !*field[2] || strtoul(field[2], &field[1], 10) != uid || *field[1])
			continue;
		field[5][strcspn(field[5], ":")] = 0;
		if (strlen(field[5]) < sizeof home - 6 && *field[5])
			strcpy(home + 5, field[5]);
		return;
	}
}

static void set_caps(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ effective, permitted, inheritable },
		{ effective >> 32, permitted >> 32, inheritable >> 32 },
	};

	if (syscall(SYS_capset, &head, data) < 0)
		fail("capset");
}

static void do_credentials(struct reader *r)
{
	uid_t uid = num(r);
	gid_t gid = num(r);
	uint64_t set_groups = num(r), count = num(r);
	gid_t *groups = calloc(count + 1, sizeof *groups);
	uint64_t limited, bounding, effective, permitted, inheritable, ambient;
	struct stat st, null;

	if (!groups)
		fail("out of memory");
	for (uint64_t i = 0; i < count; i++)
		groups[i] = num(r);
	limited = num(r), bounding = num(r), effective = num(r), permitted = num(r);
	inheritable = num(r), ambient = num(r);
	int have_null = stat("/dev/null", &null) == 0;
	for (int fd = 0; fd < 3; fd++) /* what the user writes to must be the user's; never the null device */
		if (fstat(fd, &st) == 0 && st.st_uid != uid && !(have_null && st.st_rdev == null.st_rdev &&
		    S_ISCHR(st.st_mode)) && fchown(fd, uid, -1) < 0 && errno != EINVAL && errno != EPERM &&
		    errno != EROFS && errno != EBADF)
			fail("owner of descriptor %d", fd);
	for (int cap = 0; limited && cap < 64; cap++)
		if (!(bounding >> cap & 1) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 &&
		    prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			fail("drop capability %d from the bounding set", cap);
	if (limited && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		fail("PR_SET_KEEPCAPS");
	if (set_groups && setgroups(count, groups) < 0)
		fail("setgroups");
	if (syscall(SYS_setresgid, gid, gid, gid) < 0)
		fail("setgid %u", gid);
	if (syscall(SYS_setresuid, uid, uid, uid) < 0)
		fail("setuid %u", uid);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (!limited)
		return;
	set_caps(effective, permitted, inheritable);
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned cap = 0; cap < 64; cap++) {
		char text[64];
		if (!(ambient >> cap & 1) || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) == 0)
			continue;
		send_message(MSG_WARNING, text, snprintf(text, sizeof text,
			     "ambient capability %u could not be raised", cap), -1);
	}
}

static void do_seccomp(struct reader *r)
{
	uint64_t flags = num(r), length;
	char *program = blob(r, &length);
	struct sock_fprog filter = { length / sizeof(struct sock_filter), (struct sock_filter *)malloc(length) };

	if (!filter.filter)
		fail("out of memory");
	memcpy(filter.filter, program, length);
	int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
	if (fd < 0)
		fail("seccomp");
	if (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) {
		uint32_t code = 2;
		send_message(MSG_FD, &code, sizeof code, fd);
		close(fd);
	}
	free(filter.filter);
}

/* As execvp(3) searches, but known before the container counts as created. */
static void do_lookup(struct reader *r)
{
	char *name = str(r), *path = str(r);
	int denied = 0;
	struct stat st;

	if (strchr(name, '/')) {
		if (snprintf(executable, sizeof executable, "%s", name) >= (int)sizeof executable)
			errno = ENAMETOOLONG, fail("exec: \"%s\"", name);
		if (stat(name, &st) < 0)
			fail("exec: \"%s\": stat %s", name, name);
		if (S_ISDIR(st.st_mode))
			errno = EISDIR, fail("exec: \"%s\"", name);
		if (faccessat(AT_FDCWD, name, X_OK, AT_EACCESS) < 0)
			fail("exec: \"%s\"", name);
		return;
	}
	for (;;) {
		size_t length = strcspn(path, ":");
		if (snprintf(executable, sizeof executable, "%.*s/%s", length ? (int)length : 1,
			     length ? path : ".", name) < (int)sizeof executable &&
		    stat(executable, &st) == 0 && S_ISREG(st.st_mode)) {
			if (faccessat(AT_FDCWD, executable, X_OK, AT_EACCESS) == 0)
				return;
			denied = 1;
		}
		if (!path[length])
			break;
		path += length + 1;
	}
	if (denied)
		errno = EACCES, fail("exec: \"%s\"", name);
	errno = 0, fail("exec: \"%s\": executable file not found in $PATH", name);
}

/*
 * A container that waits holds 0-2, what the caller preserves and the fifo, nothing else: callers
 * check. One that goes on keeps the socket as well, to say why execve(2) failed; both close there.
 */
static void do_ready(struct reader *r)
{
	uint32_t code = num(r);
	uint64_t keep = num(r);

	close_others(keep == UINT64_MAX ? sock : fds[keep]);
	wait_for_go(code);
	if (keep == UINT64_MAX)
		return;
	close(sock);
	sock = -1;
}

static void do_wait_fifo(struct reader *r)
{
	int fd = fd_of(r);
	char byte;

	for (;;) {
		ssize_t n = read(fd, &byte, 1);
		if (n == 1)
			break;
		if (n < 0 && errno != EINTR)
			_exit(1);
	}
	/* Left open: it closes with execve(2), which tells the one who started us that we are gone. */
}

static void do_exec(struct reader *r)
{
	char **argv = strings(r), **env = strings(r), number[32];

	for (char **variable = env; *variable; variable++)
		if (!strcmp(*variable, "LISTEN_PID=")) {
			snprintf(number, sizeof number, "LISTEN_PID=%d", getpid());
			*variable = number;
		} else if (!strcmp(*variable, "HOME=")) {
			*variable = home;
		}
	execve(executable, argv, env);
	if (sock < 0)
		dprintf(2, "exec %s: %s\n", executable, strerror(errno));
	else
		fail("exec %s", executable);
	_exit(errno == ENOENT ? 127 : 126);
}

static void do_simple(uint16_t op, struct reader *r)
{
	char *text;
	uint64_t length, a;

	switch (op) {
	case OP_JOIN:
		a = fd_of(r);
		length = num(r);
		if (setns(a, length) < 0)
			fail("join namespace %s", str(r));
		if (length & CLONE_NEWNS) { /* setns(2) moved our root to that of the namespace */
			close(rootfd);
			rootfd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		}
		break;
	case OP_UNSHARE:
		a = num(r);
		if (unshare(a) < 0)
			fail("unshare %s", str(r));
		break;
	case OP_WRITE:
		text = str(r);
		char *data = blob(r, &length);
		write_proc(text, data, length);
		break;
	case OP_BECOME_ROOT:
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
		wait_for_go(num(r));
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		setgroups(0, 0); /* refused where /proc/PID/setgroups says deny */
		if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
			fail("become root in the user namespace");
		break;
	case OP_KEYRING:
		text = str(r);
		long ring = syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, text);
		if (ring < 0 && errno != ENOSYS)
			fail("join session keyring %s", text);
		break;
	case OP_HOSTNAME:
		a = num(r);
		text = blob(r, &length);
		if ((a ? setdomainname(text, length) : sethostname(text, length)) < 0)
			fail("set %s %s", a ? "domainname" : "hostname", text);
		break;
	case OP_ATTR: {
		text = str(r);
		int mount = inside(text, O_PATH, 0);
		a = num(r);
		if (mount < 0 || set_attr(mount, a, 0, num(r), 0) < 0)
			fail("options of the mount on %s", text);
		close(mount);
		break;
	}
	case OP_MKDIR:
		text = str(r);
		int made = make_inside(text, 1, 0755);
		if (made < 0)
			fail("mkdir %s", text);
		close(made);
		break;
	case OP_SCHEDULER: {
		uint64_t attr[7] = { 0 };
		for (int i = 0; i < 7; i++)
			attr[i] = num(r);
		struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t t[3]; }
			sched = { 48, attr[0], attr[1], attr[2], attr[3], { attr[4], attr[5], attr[6] } };
		if (syscall(SYS_sched_setattr, 0, &sched, 0) < 0)
			fail("sched_setattr");
		break;
	}
	case OP_IOPRIO:
		if (syscall(SYS_ioprio_set, 1, 0, num(r)) < 0)
			fail("ioprio_set");
		break;
	}
}

static void carry_out(uint16_t op, struct reader *r)
{
	switch (op) {
	case OP_SYNC: wait_for_go(num(r)); break;
	case OP_FORK: do_fork(r); break;
	case OP_SETSID: if (setsid() < 0) fail("setsid"); break;
	case OP_LOOPBACK: do_loopback(); break;
	case OP_PROPAGATE: if (mount("", "/", "", num(r), 0) < 0) fail("propagation of /"); break;
	case OP_ROOT: do_root(r); break;
	case OP_MOUNT: do_mount(r); break;
	case OP_BIND: do_bind(r); break;
	case OP_SYMLINK: do_symlink(r); break;
	case OP_DEVICE: do_device(r); break;
	case OP_MASK: do_mask(r); break;
	case OP_READONLY: do_readonly(r); break;
	case OP_CONSOLE: do_console(r); break;
	case OP_PIVOT: do_pivot(num(r)); break;
	case OP_HOOK: do_hook(r); break;
	case OP_CWD: do_cwd(r); break;
	case OP_CREDENTIALS: do_credentials(r); break;
	case OP_UMASK: umask(num(r)); break;
	case OP_NO_NEW_PRIVS: if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail("PR_SET_NO_NEW_PRIVS"); break;
	case OP_SECCOMP: do_seccomp(r); break;
	case OP_PERSONALITY: if (personality(num(r)) < 0) fail("personality"); break;
	case OP_LOOKUP: do_lookup(r); break;
	case OP_READY: do_ready(r); break;
	case OP_WAIT_FIFO: do_wait_fifo(r); break;
	case OP_EXEC: do_exec(r); break;
	case OP_EXIT: _exit(0);
	case OP_OPEN: do_open(r); break;
	case OP_ENTER_CGROUP: do_enter_cgroup(r); break;
	case OP_HOME: do_home(num(r)); break;
	case 0: case OP_LAST: errno = EPROTO; fail("unknown step %u", op);
	default:
		if (op > OP_LAST)
			errno = EPROTO, fail("unknown step %u", op);
		do_simple(op, r);
	}
}

static void receive_fds(uint32_t count, uint32_t opens)
{
	union { char space[CMSG_SPACE(FD_BATCH * sizeof(int))]; struct cmsghdr align; } control;

	room = count + opens;
	fds = calloc(room + 1, sizeof *fds);
	while (fds && (uint32_t)nfds < count) {
		char byte;
		struct iovec iov = { &byte, 1 };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
					  .msg_controllen = sizeof control.space };
		if (recvmsg(sock, &message, MSG_CMSG_CLOEXEC) != 1)
			_exit(1);
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		if (!c || c->cmsg_type != SCM_RIGHTS)
			errno = EPROTO, fail("descriptors did not come");
		int got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if ((uint32_t)(nfds + got) > count)
			errno = EPROTO, fail("too many descriptors came");
		memcpy(fds + nfds, CMSG_DATA(c), got * sizeof(int));
		nfds += got;
	}
	if (!fds)
		fail("out of memory");
}

int main(int argc, char **argv)
{
	struct { uint32_t magic, fds, opens, length; } head;
	sigset_t none;

	if (argc != 3)
		return 125;
	sock = atoi(argv[1]);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "ocimig-init", 0, 0, 0);
	struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } usual = { 0 };
	for (int n = 1; n < 65; n++) /* not signal(3): the C library keeps two numbers to itself */
		syscall(SYS_rt_sigaction, n, &usual, NULL, sizeof usual.mask);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, 0);
	first_fd = atoi(argv[2]);
	close_others(sock);
	fcntl(sock, F_SETFD, FD_CLOEXEC);
	umask(0);
	read_exactly(&head, sizeof head);
	if (head.magic != 0x31494f43 || head.length > PLAN_MAX || head.fds > 65536 || head.opens > 65536)
		errno = EPROTO, fail("this is not a plan");
	receive_fds(head.fds, head.opens);
	char *plan = malloc(head.length + 1);
	if (!plan)
		fail("out of memory");
	read_exactly(plan, head.length);
	rootfd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (struct reader all = { plan, plan + head.length }; all.at < all.end; step_number++) {
		uint64_t op = num(&all), length = num(&all);
		if (length > (uint64_t)(all.end - all.at))
			errno = EPROTO, fail("the plan is cut short");
		struct reader one = { all.at, all.at + length };
		all.at += length;
		carry_out(op, &one);
	}
	errno = EPROTO;
	fail("the plan has no end");
}
