/* A program whose memory and calls are known: it does what it reads, a line each, and answers a line. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/rseq.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000L
static long limit; /* ms */

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / MS;
}

static struct timespec wait_time(void)
{
	struct timespec t = { limit / 1000, limit % 1000 * MS };
	return t;
}

/* One blocking call that should take `limit` ms and end as if nobody had stopped us. */
static long blocking(const char *name)
{
	struct timespec t = wait_time();
	struct timeval tv = { limit / 1000, limit % 1000 * 1000 };
	int pair[2], word = 0;
	char byte;
	struct epoll_event event;
	struct pollfd none = { -1, 0, 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	if (!strcmp(name, "nanosleep"))
		return nanosleep(&t, NULL);
	if (!strcmp(name, "poll"))
		return poll(&none, 1, limit);
	if (!strcmp(name, "select"))
		return select(0, NULL, NULL, NULL, &tv);
	if (!strcmp(name, "epoll_wait"))
		return epoll_wait(epoll_create1(0), &event, 1, limit);
	if (!strcmp(name, "futex"))
		return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, NULL, 0);
	if (!strcmp(name, "sigtimedwait")) {
		sigprocmask(SIG_BLOCK, &set, NULL);
		return sigtimedwait(&set, NULL, &t);
	}
	if (!strcmp(name, "semtimedop")) {
		struct sembuf take = { 0, -1, 0 };
		int id = semget(IPC_PRIVATE, 1, 0600);
		long result = semtimedop(id, &take, 1, &t), error = errno;
		semctl(id, 0, IPC_RMID);
		errno = error;
		return result;
	}
	if (!strcmp(name, "recv")) {
		socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
		setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		return recv(pair[0], &byte, 1, 0);
	}
	errno = ENOSYS;
	return -1;
}

static void *spin(void *at)
{
	for (volatile char *page = at;; usleep(1000))
		page[0]++;
	return NULL;
}

static char file[100];

/* Reads one page after the other past the page cache, to 64 pages. */
static void *read_directly(void *to)
{
	int fd = open(file, O_RDONLY | O_DIRECT);
	off_t size = lseek(fd, 0, SEEK_END);

	for (unsigned long n = 0;; n++)
		if (pread(fd, (char *)to + n * 37 % 64 * 4096, 4096, n * 4096 * 7919 % size / 4096 * 4096) != 4096)
			return NULL;
}

static volatile int caught;

static void on_signal(int sig)
{
	caught = sig;
}

static void kill_unknown_calls(void)
{
	static const int known[] = { SYS_read, SYS_write, SYS_exit_group, SYS_mmap, SYS_munmap };
	enum { N = sizeof known / sizeof *known };
	struct sock_filter code[N + 3] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)) };
	struct sock_fprog program = { N + 3, code };

	for (int n = 0; n < N; n++)
		code[n + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, known[n], N - n, 0);
	code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* A long restartable sequence; 1 when it came to its end though the kernel had taken note of a stop. */
static int sequence(volatile struct rseq *area)
{
	int broken = 0;

	__asm__ volatile(".pushsection .data, \"aw\"\n .balign 32\n 8: .long 0, 0\n .quad 1f, 3f - 1f, 4f\n"
			 ".popsection\n lea 8b(%%rip), %%rax\n mov %%rax, 8(%1)\n"
			 "1: mov $100000, %%ecx\n 2: dec %%ecx\n jnz 2b\n"
			 "cmpq $0, 8(%1)\n sete %%al\n movzbl %%al, %0\n"
			 "3: movq $0, 8(%1)\n jmp 9f\n"
			 ".long 0x53053053\n 4: mov $2, %0\n 9:\n"
			 : "=&r"(broken) : "r"(area) : "rax", "rcx", "memory");
	return broken;
}

static void answer(long first, long second, long third)
{
	char line[100];
	if (write(1, line, sprintf(line, "%lx %ld %ld\n", first, second, third)) < 0)
		_exit(1);
}

int main(int argc, char **argv)
{
	char line[200], word[50], text[50];
	long a, b;

	signal(SIGUSR1, on_signal);
	answer(argc, getpid(), 0);
	for (;;) {
		ssize_t length = 0; /* no buffer: another program may go on reading */
		while (length < (ssize_t)sizeof line - 1 && read(0, line + length, 1) == 1 && line[length] != '\n')
			length++;
		line[length] = a = b = 0;
		text[0] = 0;
		if (sscanf(line, "%49s", word) != 1)
			return 0;
		sscanf(line, "%*s %lx %ld", &a, &b);
		sscanf(line, "%*s %49s %ld", text, &limit);
		if (!strcmp(word, "map")) {
			void *at = mmap((void *)a, b * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			answer((long)at, at == MAP_FAILED ? errno : 0, 0);
		} else if (!strcmp(word, "share")) { /* 0 anonymous, 1 a memfd, 2 a SysV segment; of 16 pages */
			int fd = a == 1 ? memfd_create("tracked", 0) : -1;
			if (fd >= 0 && ftruncate(fd, 16 * 4096) < 0)
				return 1;
			int id = a == 2 ? shmget(IPC_PRIVATE, 16 * 4096, 0600) : -1;
			void *at = a == 2 ? shmat(id, NULL, 0) : mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE,
								      MAP_SHARED | (a ? 0 : MAP_ANONYMOUS), fd, 0);
			if (a == 2)
				shmctl(id, IPC_RMID, NULL);
			answer((long)at, fd, 0);
		} else if (!strcmp(word, "code")) { /* below the program, as a compiler at run time may do */
			answer((long)mmap((void *)0x200000, 4 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), errno, 0);
		} else if (!strcmp(word, "shorten")) {
			answer(ftruncate(a, b * 4096), errno, 0);
		} else if (!strcmp(word, "write")) {
			for (long n = 0; n < b; n++)
				(*(volatile char *)(a + n * 4096))++;
			answer(a, b, 0);
		} else if (!strcmp(word, "into")) { /* by the kernel */
			int fd = open("/proc/self/exe", O_RDONLY | (b ? O_DIRECT : 0));
			answer(pread(fd, (char *)a, 4096, 0), errno, 0);
			close(fd);
		} else if (!strcmp(word, "unmap"))
			answer(munmap((void *)a, b * 4096), errno, 0);
		else if (!strcmp(word, "move")) {
			void *to = mmap(NULL, b * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			answer((long)mremap((void *)a, b * 4096, b * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to), errno, 0);
		} else if (!strcmp(word, "drop"))
			answer(madvise((void *)a, b * 4096, MADV_DONTNEED), errno, 0);
		else if (!strcmp(word, "merge"))
			answer(madvise((void *)a, b * 4096, MADV_MERGEABLE), errno, 0);
		else if (!strcmp(word, "lock"))
			answer(mlock((void *)a, b * 4096), errno, 0);
		else if (!strcmp(word, "unlock"))
			answer(munlock((void *)a, b * 4096), errno, 0);
		else if (!strcmp(word, "grow")) {
			char *top = sbrk(b * 4096);
			memset(top, 1, b * 4096);
			answer((long)top, errno, 0);
		} else if (!strcmp(word, "fork")) {
			int pid = fork();
			for (; pid == 0; usleep(1000))
				(*(volatile char *)a)++;
			answer(a, pid, 0);
		} else if (!strcmp(word, "vfork")) { /* waits in the kernel until the child ends, which takes b ms */
			answer(0, 0, 0);
			struct timespec t = { b / 1000, b % 1000 * MS };
			int pid = vfork();
			if (pid == 0) {
				nanosleep(&t, NULL);
				_exit(0);
			}
			waitpid(pid, NULL, 0);
			answer(0, pid, 0);
		} else if (!strcmp(word, "exec")) {
			execv("/proc/self/exe", argv);
			answer(0, errno, 0);
		} else if (!strcmp(word, "thread")) {
			pthread_t thread;
			answer(a, pthread_create(&thread, NULL, spin, (void *)a), 0);
		} else if (!strcmp(word, "direct")) {
			pthread_t thread;
			sscanf(line, "%*s %*s %*s %99s", file);
			answer(a, pthread_create(&thread, NULL, read_directly, (void *)a), 0);
		} else if (!strcmp(word, "leave")) { /* the main thread ends, the others go on */
			answer(0, 0, 0);
			syscall(SYS_exit, 0);
		} else if (!strcmp(word, "call")) {
			answer(0, 0, 0);
			long began = now(), result = blocking(text);
			answer(result, result < 0 ? errno : 0, now() - began);
		} else if (!strcmp(word, "pause")) {
			answer(0, 0, 0);
			long result = pause();
			answer(result, caught, errno);
		} else if (!strcmp(word, "seccomp")) {
			kill_unknown_calls();
			answer(0, 0, 0);
		} else if (!strcmp(word, "ignore")) {
			sigset_t set;
			sigemptyset(&set);
			sigaddset(&set, SIGTRAP);
			sigprocmask(SIG_BLOCK, &set, NULL);
			answer((long)signal(SIGTRAP, SIG_IGN), 0, 0);
		} else if (!strcmp(word, "sequences")) {
			volatile struct rseq *area = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
			long results[3] = { 0 };
			answer(__rseq_size, 0, 0);
			for (long n = 0; n < b; n++)
				results[sequence(area)]++;
			answer(results[0], results[1], results[2]);
		} else
			answer(-1, ENOSYS, 0);
	}
}
