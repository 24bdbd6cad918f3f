/* Namespaces, cgroups and names: everything before the file system. */
#include "init.h"
#include <grp.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>

void step_join(struct reader *r)
{
	int fd = fd_of(r);
	uint64_t flags = num(r);

	if (setns(fd, flags) < 0)
		fail("join namespace %s", str(r));
	if (flags & CLONE_NEWNS) { /* setns(2) moved our root to that of the namespace */
		close(rootfd);
		rootfd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
}

void step_unshare(struct reader *r)
{
	uint64_t flags = num(r);

	if (unshare(flags) < 0)
		fail("unshare %s", str(r));
}

/* One thread that moves itself needs no lock of the kernel's; see runtime/cgroups. */
void step_enter_cgroup(struct reader *r)
{
	char *path = str(r), *value = str(r);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		fail("join cgroup %s", path);
	close(fd);
}

void step_fork(struct reader *r)
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

/* A path below /proc of the host, checked to be procfs: nothing else may stand there. */
void step_write(struct reader *r)
{
	uint64_t length;
	char *path = str(r), *data = blob(r, &length);
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

void step_become_root(struct reader *r)
{
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* else a launcher that is not root may not write the maps */
	wait_for_go(num(r));
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	setgroups(0, 0); /* refused where /proc/PID/setgroups says deny */
	if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
		fail("become root in the user namespace");
}

void step_setsid(struct reader *r)
{
	(void)r;
	if (setsid() < 0)
		fail("setsid");
}

void step_keyring(struct reader *r)
{
	char *name = str(r);

	if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, name) < 0 && errno != ENOSYS)
		fail("join session keyring %s", name);
}

void step_hostname(struct reader *r)
{
	uint64_t domain = num(r), length;
	char *name = blob(r, &length);

	if ((domain ? setdomainname(name, length) : sethostname(name, length)) < 0)
		fail("set %s %s", domain ? "domainname" : "hostname", name);
}

void step_loopback(struct reader *r)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)r;
	if (s < 0 || ioctl(s, SIOCSIFFLAGS, &request) < 0)
		fail("bring up lo");
	close(s);
}
