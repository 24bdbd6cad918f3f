/*
 * A mode of its own: put a userfaultfd into running processes, take a copy of it, and leave nothing
 * behind. A userfaultfd belongs to the address space of the process that makes it, so the process has
 * to make it; ptrace(2) lets it. Runs from the sealed memfd as init does, but outside, on the host.
 *
 * argv: ocimig-init arm SOCKET PID:START... with START from /proc/PID/stat, so that a number that became
 * another process's is left alone; "0:0" is a child made for a try. For each one message goes to the
 * socket, MSG_ARMED: struct answer, with the descriptor when error is 0 (runtime/arming.py).
 *
 * While its registers are ours the process would not survive our death: from the first PTRACE_SETREGS
 * to the second, two system calls long. So all this is done by a small process with a session of its
 * own and every signal blocked: only SIGKILL to just this process can hurt, not the end of its caller.
 * At any other time our death lets the process go on as if nothing had been.
 */
#include "init.h"
#include <dirent.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

#define STOP_LIMIT 100000000L /* ns to the first stop: a vfork(2) or a dead disk may hold it for ever */
#define STEP_LIMIT 500000000L /* ns to the entry of a call: a frozen cgroup holds it */

static struct answer { int32_t pid, error; uint32_t stopped_us; char what[52]; } answer;

#ifdef __x86_64__

#define CODE_64 0x33 /* the code segment of 64-bit programs */
#define ALL_SIGNALS (~0ull)
#define SYSCALL_STOP (SIGTRAP | 0x80)
#define RESTART_NO_HAND 514 /* ERESTARTNOHAND: start again, but EINTR when a handler ran */
#define SUSPEND_SECCOMP (1 << 21)
#define GET_RSEQ 0x420f
#define GET_DISPATCH 0x4211
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* since Linux 6.9 */
#endif

static int mem = -1;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int failed(const char *what, int error)
{
	answer.error = error;
	snprintf(answer.what, sizeof answer.what, "%s", what);
	return -1;
}

/* The next stop of the thread: its status, 0 when it took longer than `limit` ns (0: no limit), -1: gone. */
static int stopped(int tid, int64_t limit)
{
	int64_t end = now() + limit;
	sigset_t child;
	int status;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (;;) {
		int got = waitpid(tid, &status, __WALL | WNOHANG);
		if (got < 0 || (got > 0 && !WIFSTOPPED(status)))
			return -1;
		if (got > 0)
			return status;
		int64_t left = limit ? end - now() : 1000000000;
		if (left <= 0)
			return 0;
		struct timespec t = { left / 1000000000, left % 1000000000 };
		sigtimedwait(&child, NULL, &t);
	}
}

/* Go on until the stop of PTRACE_INTERRUPT, or a group stop: both are where signals are delivered. */
static int until_event(int tid, int64_t limit)
{
	for (;;) {
		int status = stopped(tid, limit);
		if (status <= 0 || status >> 16 == PTRACE_EVENT_STOP)
			return status;
		int sig = WSTOPSIG(status); /* a signal of its own that came first */
		if (sig == SYSCALL_STOP) { /* our call, of which we despaired: it is not to be made */
			ptrace(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, orig_rax), -1);
			sig = 0;
		}
		ptrace(PTRACE_CONT, tid, 0, sig);
	}
}

/* Run to the next entry or exit of a system call. SIGSTOP cannot be blocked, and is passed on. */
static int until_syscall(int tid, int64_t limit)
{
	int sig = 0;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, tid, 0, sig) < 0)
			return -1;
		int status = stopped(tid, limit);
		if (status <= 0)
			return status;
		if (WSTOPSIG(status) == SYSCALL_STOP)
			return status;
		sig = status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
	}
}

/* Where a system call instruction is: in the vdso, else anywhere in executable memory; 0 without. */
static uint64_t find_syscall(int pid)
{
	static char line[PATH_MAX + 128], code[65536];
	uint64_t start, end, found = 0;
	char path[64], mode[5];

	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "re");
	while (maps && fgets(line, sizeof line, maps)) {
		int vdso = strstr(line, "[vdso]") != NULL;
		if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) != 3 || mode[2] != 'x' ||
		    strstr(line, "[vsyscall]") || (found && !vdso))
			continue;
		for (uint64_t at = start; at < end; at += sizeof code - 1) {
			ssize_t got = pread(mem, code, end - at < sizeof code ? end - at : sizeof code, at);
			char *hit = got > 1 ? memmem(code, got, "\x0f\x05", 2) : NULL;
			if (hit)
				found = at + (hit - code);
			if (hit || got <= 0)
				break;
		}
	}
	if (maps)
		fclose(maps);
	return found;
}

/* Inside a restartable sequence: the kernel would send it to its abort address, had it been preempted. */
static void leave_sequence(int tid, struct user_regs_struct *regs)
{
	struct { uint64_t pointer; uint32_t size, signature, flags, pad; } rseq = { 0 };
	struct { uint32_t version, flags; uint64_t start, length, abort; } section;
	uint64_t address = 0;

	if (ptrace(GET_RSEQ, tid, sizeof rseq, &rseq) != sizeof rseq || !rseq.pointer)
		return;
	if (pread(mem, &address, 8, rseq.pointer + 8) != 8 || !address)
		return;
	if (pread(mem, &section, sizeof section, address) == sizeof section &&
	    regs->rip - section.start < section.length)
		regs->rip = section.abort;
}

/*
 * These say EINTR when they are stopped, though no signal came (signal(7), the last of them only on
 * sockets with a timeout). They have done nothing yet: let them start again, their timeout too.
 */
static void restart_quietly(struct user_regs_struct *regs)
{
	switch (regs->orig_rax) {
	case SYS_epoll_wait: case SYS_epoll_pwait: case SYS_epoll_pwait2: case SYS_semop: case SYS_semtimedop:
	case SYS_rt_sigtimedwait: case SYS_io_getevents: case SYS_accept: case SYS_accept4: case SYS_read:
	case SYS_readv: case SYS_recvfrom: case SYS_recvmsg: case SYS_write: case SYS_writev: case SYS_sendto:
	case SYS_sendmsg:
		if ((int64_t)regs->rax == -EINTR)
			regs->rax = -RESTART_NO_HAND;
	}
}

static uint64_t number_in(int pid, const char *file, const char *after, int skip)
{
	char path[64], text[4096];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, text, sizeof text - 1);

	close(fd);
	text[got > 0 ? got : 0] = 0;
	char *at = *after == ')' ? strrchr(text, ')') : strstr(text, after);
	at = at ? at + strlen(after) : NULL;
	for (; at && skip; skip--)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : ~0ull;
}

/* Whether the stopped thread is one that we can and may use. */
static int usable(int pid, int tid, uint64_t start, int suspended, uint64_t ip, struct user_regs_struct *regs)
{
	struct { uint64_t mode, selector, offset, length; } dispatch = { 0 };
	uint16_t code = 0;

	if (start && number_in(pid, "stat", ")", 19) != start)
		return failed("the process is another now", ESRCH);
	if (!suspended && number_in(tid, "status", "\nSeccomp:", 0))
		return failed("its system call filter cannot be suspended", EPERM);
	if (ptrace(PTRACE_GETREGS, tid, 0, regs) < 0)
		return failed("read its registers", errno);
	if (regs->cs != CODE_64)
		return failed("it is a 32-bit program", EOPNOTSUPP);
	if (ptrace(GET_DISPATCH, tid, sizeof dispatch, &dispatch) == 0 && dispatch.mode)
		return failed("it dispatches its system calls itself", EOPNOTSUPP);
	if (!ip && regs->orig_rax != ~0ull)
		ip = regs->rip - 2;
	if (!ip || pread(mem, &code, 2, ip) != 2 || code != 0x050f)
		return failed("no system call instruction was found in it", EAGAIN);
	return 0;
}

/* Let the stopped thread make one system call: 0 and its result, 1 when it did not come to it, -1 gone. */
static int inject(int tid, const struct user_regs_struct *saved, uint64_t ip, long number, long arg,
		  int64_t limit, long *result)
{
	struct user_regs_struct regs = *saved;

	regs.rip = ip;
	regs.rax = number;
	regs.orig_rax = -1; /* so that nothing is restarted on the way */
	regs.rdi = arg;
	if (ptrace(PTRACE_SETREGS, tid, 0, &regs) < 0)
		return -1;
	int status = until_syscall(tid, limit);
	if (status <= 0)
		return status < 0 ? -1 : 1;
	if (until_syscall(tid, 0) < 0 || ptrace(PTRACE_GETREGS, tid, 0, &regs) < 0)
		return -1;
	*result = regs.rax;
	return 0;
}

static int copy_of(int pid, int tid, int theirs)
{
	int pidfd = syscall(SYS_pidfd_open, tid, tid == pid ? 0 : PIDFD_THREAD);
	int fd = pidfd < 0 ? -1 : syscall(SYS_pidfd_getfd, pidfd, theirs, 0);

	if (fd < 0)
		failed("copy its descriptor", errno);
	return fd;
}

/* The registers are ours between the two marks, and only there. */
static int borrow(int pid, int tid, struct user_regs_struct *saved, uint64_t ip)
{
	uint64_t mask, all = ALL_SIGNALS;
	int fd = -1, status = 0;
	long made = -1, ignored;

	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof mask, &mask) < 0 ||
	    ptrace(PTRACE_SETSIGMASK, tid, sizeof all, &all) < 0)
		return failed("block its signals", errno);
	/* ---- from here ---- */
	int left = inject(tid, saved, ip, SYS_userfaultfd, 1 | O_CLOEXEC | O_NONBLOCK, STEP_LIMIT, &made);
	if (left == 0 && made >= 0) {
		fd = copy_of(pid, tid, made);
		left = inject(tid, saved, ip, SYS_close, made, 0, &ignored);
	} else if (left == 0)
		failed("make a userfaultfd", -made);
	else if (left > 0)
		failed("it is frozen", EBUSY);
	/*
	 * It must stop once more where signals are delivered: there, and only there, the kernel looks at
	 * the registers to start an interrupted system call again.
	 */
	ptrace(PTRACE_INTERRUPT, tid, 0, 0);
	if (left > 0)
		status = until_event(tid, 0);
	ptrace(PTRACE_SETREGS, tid, 0, saved);
	/* ---- to here ---- */
	ptrace(PTRACE_SETSIGMASK, tid, sizeof mask, &mask);
	if (left == 0 && ptrace(PTRACE_CONT, tid, 0, 0) == 0)
		status = until_event(tid, 0);
	if (status < 0 || left < 0)
		failed("it ended", ESRCH);
	return fd;
}

static int arm_thread(int pid, int tid, uint64_t start)
{
	struct user_regs_struct regs;
	char path[64];
	int fd = -1, suspended = 1;

	snprintf(path, sizeof path, "/proc/%d/mem", tid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t ip = mem < 0 ? 0 : find_syscall(tid);
	if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD | SUSPEND_SECCOMP) < 0) {
		suspended = 0; /* not ours to do, or not in this kernel: fine where there is no filter */
		if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD) < 0)
			return failed("trace it", errno);
	}
	int64_t began = now();
	ptrace(PTRACE_INTERRUPT, tid, 0, 0);
	int status = until_event(tid, STOP_LIMIT);
	if (status <= 0) /* our end takes the request to stop away again */
		return failed(status ? "it ended" : "it does not stop", status ? ESRCH : EBUSY);
	if (usable(pid, tid, start, suspended, ip, &regs) == 0) {
		leave_sequence(tid, &regs);
		restart_quietly(&regs);
		fd = borrow(pid, tid, &regs, ip ? ip : regs.rip - 2);
	}
	ptrace(PTRACE_DETACH, tid, 0, 0);
	answer.stopped_us = (now() - began) / 1000;
	return fd;
}

/* The main thread, or the first that lives where that has ended. */
static int thread_of(int pid)
{
	char path[64], name[512];
	int tid = pid;

	for (int n = 0; n < 100000; n++) {
		snprintf(path, sizeof path, "/proc/%d/task", pid);
		char state = 0;
		snprintf(name, sizeof name, "/proc/%d/stat", tid);
		FILE *stat = fopen(name, "re");
		if (stat && fgets(name, sizeof name, stat) && strrchr(name, ')'))
			state = strrchr(name, ')')[2];
		if (stat)
			fclose(stat);
		if (state != 'Z' && state != 'X')
			return tid;
		DIR *tasks = opendir(path);
		struct dirent *entry;
		int next = 0;
		while (tasks && (entry = readdir(tasks)))
			if (atoi(entry->d_name) > tid && (!next || atoi(entry->d_name) < next))
				next = atoi(entry->d_name);
		if (tasks)
			closedir(tasks);
		if (!next)
			return pid;
		tid = next;
	}
	return pid;
}

#else

static int arm_thread(int pid, int tid, uint64_t start)
{
	(void)pid, (void)tid, (void)start;
	answer.error = EOPNOTSUPP;
	strcpy(answer.what, "not on this architecture");
	return -1;
}

static int thread_of(int pid)
{
	return pid;
}

#endif

static void protect_ourselves(void)
{
	sigset_t all;

	setsid();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "ocimig-arm", 0, 0, 0);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (write(fd, "-1000", 5) < 0) { /* asks for CAP_SYS_RESOURCE: as it was, then */
	}
	close(fd);
	/* It waits for us, not for its turn: on a busy host that is most of the time that it stands still. */
	sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 });
}

int arm(int argc, char **argv)
{
	sock = atoi(argv[2]);
	protect_ourselves();
	for (int n = 3; n < argc; n++) {
		char *colon = strchr(argv[n], ':');
		int pid = atoi(argv[n]), victim = 0, status;
		if (pid == 0 && (victim = pid = fork()) == 0)
			for (;;)
				pause();
		/* one child for each: its end lets go of a process that does not stop, at once */
		pid_t worker = fork();
		if (worker == 0) {
			answer.pid = atoi(argv[n]);
			int fd = arm_thread(pid, thread_of(pid), colon ? strtoull(colon + 1, NULL, 10) : 0);
			if (fd < 0 && !answer.error)
				answer.error = EIO;
			send_message(MSG_ARMED, &answer, sizeof answer, answer.error ? -1 : fd);
			_exit(0);
		}
		while (waitpid(worker, &status, 0) < 0 && errno == EINTR)
			;
		if (victim)
			kill(victim, SIGKILL);
		if (worker < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
			return 1; /* the caller is gone */
	}
	return 0;
}
