/* Loaded into CRIU: three things that it does slowly while the container stands still, done faster. Changes no
 * answer.
 *
 *   openat(2)      of /proc/PID/smaps opens the file smaps-PID in the directory that OCIMIG_WITHHELD names, where
 *                  there is one: what CRIU reads of it, without the counting of pages, 13 ms a GiB
 *                  (migrate/mappings.py, which confirms it afterwards).
 *   nanosleep(2)   CRIU looks every 100 ms whether a cgroup is frozen (criu/seize.c); it rarely takes one.
 *   sendmsg(2)     CRIU asks twice for the connections that the network namespace tracks (criu/net.c, dump_nf_ct),
 *                  and each time the kernel walks the table of all namespaces, 12 ms for one of 262,144
 *                  buckets. Where the namespace tracks none the list that kernels since 5.19 keep empty is
 *                  asked for instead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define STEP 100000000l  /* of CRIU's, in nanoseconds */
#define FIRST_STEP 100000l

/* 0.1, 0.2, 0.4 ms and so on up to CRIU's own step: its number of attempts still lasts as long as it means. */
PUBLIC int nanosleep(const struct timespec *wish, struct timespec *left)
{
	static int (*real)(const struct timespec *, struct timespec *);
	static long step = FIRST_STEP;
	struct timespec shorter = { 0, step };

	if (!real)
		real = dlsym(RTLD_NEXT, "nanosleep");
	if (wish->tv_sec || wish->tv_nsec != STEP || step >= STEP)
		return real(wish, left);
	step *= 2;
	return real(&shorter, left);
}

PUBLIC int openat64(int place, const char *name, int flags, ...)
{
	static int (*real)(int, const char *, int, ...);
	const char *directory = getenv("OCIMIG_WITHHELD");
	char link[48], path[4096];
	unsigned long pid;
	ssize_t size;
	va_list rest;
	mode_t mode;
	int fd = -1;

	va_start(rest, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
	va_end(rest);
	if (!real)
		real = dlsym(RTLD_NEXT, "openat64");
	if (directory && !strcmp(name, "smaps")) {
		snprintf(link, sizeof link, "/proc/self/fd/%d", place);
		size = readlink(link, path, sizeof path - 1);
		path[size < 0 ? 0 : size] = '\0';
		if (sscanf(path, "/proc/%lu", &pid) == 1) {
			snprintf(path, sizeof path, "%s/smaps-%lu", directory, pid);
			fd = real(AT_FDCWD, path, flags | O_NOFOLLOW);
		}
	}
	return fd >= 0 ? fd : real(place, name, flags, mode);
}

/* Whether the network namespace we are in tracks no connection at all. */
static int none_tracked(void)
{
	char word[8];
	ssize_t size;
	int fd;

	fd = open("/proc/sys/net/netfilter/nf_conntrack_count", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	size = read(fd, word, sizeof word);
	close(fd);
	return size == 2 && word[0] == '0';
}

PUBLIC ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	static ssize_t (*real)(int, const struct msghdr *, int);
	struct nlmsghdr *head = message->msg_iovlen == 1 ? message->msg_iov->iov_base : NULL;
	int protocol = -1;
	socklen_t size = sizeof protocol;

	if (!real)
		real = dlsym(RTLD_NEXT, "sendmsg");
	if (head && message->msg_iov->iov_len >= sizeof *head &&
	    head->nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET) &&
	    (head->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP &&
	    !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) && protocol == NETLINK_NETFILTER &&
	    none_tracked())
		head->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_UNCONFIRMED;
	return real(fd, message, flags);
}
