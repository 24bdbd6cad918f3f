/* The process itself: its terminal, its rights, its program. */
#include "init.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

static char executable[PATH_MAX], home[PATH_MAX] = "HOME=/";
static int cwd_set;

/* CVE-2025-52565: the terminal is made in the container's own devpts and taken by TIOCGPTPEER. */
void step_console(struct reader *r)
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
	uint32_t code = FD_CONSOLE;
	send_message(MSG_FD, &code, sizeof code, master);
	close(master), close(dir);
	if (ioctl(slave, TIOCSCTTY, 0) < 0)
		fail("TIOCSCTTY");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slave, fd) < 0)
			fail("dup2");
	close(slave);
}

void step_hook(struct reader *r)
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
		umask(022); /* ours is 0 while the root is made */
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

void step_cwd(struct reader *r)
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
void step_home(struct reader *r)
{
	unsigned uid = num(r);
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

void step_credentials(struct reader *r)
{
	uid_t uid = num(r);
	gid_t gid = num(r);
	uint64_t set_groups = num(r), count = num(r);
	gid_t *groups = calloc(count + 1, sizeof *groups);
	uint64_t limited, bounding, effective, permitted, inheritable, ambient;
	struct stat st;

	if (!groups)
		fail("out of memory");
	for (uint64_t i = 0; i < count; i++)
		groups[i] = num(r);
	limited = num(r), bounding = num(r), effective = num(r), permitted = num(r);
	inheritable = num(r), ambient = num(r);
	for (int fd = 0; fd < 3; fd++) /* what the user writes to must be the user's; never the null device */
		if (fstat(fd, &st) == 0 && st.st_uid != uid &&
		    !(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) && fchown(fd, uid, -1) < 0 &&
		    errno != EINVAL && errno != EPERM && errno != EROFS && errno != EBADF)
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

void step_umask(struct reader *r)
{
	umask(num(r));
}

void step_no_new_privs(struct reader *r)
{
	(void)r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail("PR_SET_NO_NEW_PRIVS");
}

void step_seccomp(struct reader *r)
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
		uint32_t code = FD_LISTENER;
		send_message(MSG_FD, &code, sizeof code, fd);
		close(fd);
	}
	free(filter.filter);
}

void step_personality(struct reader *r)
{
	if (personality(num(r)) < 0)
		fail("personality");
}

void step_scheduler(struct reader *r)
{
	uint64_t a[7];
	for (int i = 0; i < 7; i++)
		a[i] = num(r);
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t times[3]; }
		attr = { 48, a[0], a[1], a[2], a[3], { a[4], a[5], a[6] } }; /* struct sched_attr */

	if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
		fail("sched_setattr");
}

void step_ioprio(struct reader *r)
{
	if (syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, num(r)) < 0)
		fail("ioprio_set");
}

/* As execvp(3) searches, but known before the container counts as created. */
void step_lookup(struct reader *r)
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

void step_exec(struct reader *r)
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

void step_exit(struct reader *r)
{
	(void)r;
	_exit(0);
}
