/* What init hears from the launcher and says to it; the bytes are described in runtime/sync.py. */
#include "init.h"
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#define FD_BATCH 200 /* descriptors a message; the kernel's limit is 253 (SCM_MAX_FD) */
#define ANSWER_MAX (64u << 20)
#define SPARE_FDS 64 /* beside those of the plan */
#define SYNC_HOOKS 2 /* the root is made; runtime/sync.py */

int sock = -1, step_number;
int *fds, nfds, room, first_fd; /* descriptors that steps name by their place */
char *state_json = "";
uint32_t state_length;
static struct rlimit usual_limit;
static int raised;

void send_message(uint32_t type, const void *data, uint32_t length, int fd)
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
void fail(const char *format, ...)
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

void read_exactly(void *data, size_t length)
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

/* A thousand mounts need more descriptors than many a caller has; the container gets the caller's limit. */
static void raise_limit(rlim_t wanted)
{
	struct rlimit more;

	if (getrlimit(RLIMIT_NOFILE, &usual_limit) < 0 || usual_limit.rlim_cur >= wanted)
		return;
	more = usual_limit;
	more.rlim_cur = wanted < more.rlim_max ? wanted : more.rlim_max;
	raised = setrlimit(RLIMIT_NOFILE, &more) == 0;
}

void receive_fds(uint32_t count, uint32_t opens)
{
	union { char space[CMSG_SPACE(FD_BATCH * sizeof(int))]; struct cmsghdr align; } control;

	room = count + opens;
	raise_limit(room + SPARE_FDS);
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

/* Close all but 0-2, what the caller preserves, the socket, and one more. */
void close_others(int keep)
{
	int low = keep < sock ? keep : sock, high = keep < sock ? sock : keep;

	if (low > first_fd)
		syscall(SYS_close_range, first_fd, low - 1, 0);
	if (high > low + 1)
		syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, ~0u, 0);
}

uint64_t num(struct reader *r)
{
	uint64_t value;

	if (r->end - r->at < 8)
		errno = EPROTO, fail("the plan is cut short");
	memcpy(&value, r->at, 8);
	r->at += 8;
	return value;
}

char *blob(struct reader *r, uint64_t *length)
{
	*length = num(r);
	if (*length >= (uint64_t)(r->end - r->at) || r->at[*length] != 0)
		errno = EPROTO, fail("the plan is cut short");
	char *data = r->at;
	r->at += *length + 1;
	return data;
}

char *str(struct reader *r)
{
	uint64_t length;
	return blob(r, &length);
}

char **strings(struct reader *r)
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

int fd_of(struct reader *r)
{
	uint64_t index = num(r);
	if (index >= (uint64_t)nfds)
		errno = EPROTO, fail("the plan names a descriptor that did not come");
	return fds[index];
}

/* ---- steps ---- */

void wait_for_go(uint32_t code)
{
	uint32_t length;

	if (raised && code == SYNC_HOOKS) { /* before the launcher sets the limits of the process */
		setrlimit(RLIMIT_NOFILE, &usual_limit);
		raised = 0;
	}
	send_message(MSG_SYNC, &code, sizeof code, -1);
	read_exactly(&length, sizeof length);
	if (length > ANSWER_MAX)
		errno = EPROTO, fail("the launcher's answer is too long");
	if (length) { /* the state of the container, for hooks */
		state_json = malloc(length);
		if (!state_json)
			fail("out of memory");
		read_exactly(state_json, length);
		state_length = length;
	}
}

void step_sync(struct reader *r)
{
	wait_for_go(num(r));
}

enum kind { KIND_TREE = 1, KIND_NULL, KIND_PATH, KIND_NAMESPACE };

/*
 * Open what a later step needs, while we are still in the host's namespaces and have all its rights:
 * a bind mount's source may lie where the container's root may not look.
 */
void step_open(struct reader *r)
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
		fd = open(path, (kind == KIND_PATH ? O_PATH : O_RDONLY | O_NONBLOCK) | O_CLOEXEC);
	if (fd < 0)
		fail("open %s", path);
	if (kind == KIND_NULL && (fstat(fd, &st) < 0 || st.st_rdev != makedev(1, 3)))
		errno = ENODEV, fail("%s is not the null device", path);
	if (nfds == room)
		errno = EPROTO, fail("the plan opens more than it said");
	fds[nfds++] = fd;
}

/*
 * A container that waits holds 0-2, what the caller preserves and the fifo, nothing else: callers
 * check. One that goes on keeps the socket as well, to say why execve(2) failed; both close there.
 */
void step_ready(struct reader *r)
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

void step_wait_fifo(struct reader *r)
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
