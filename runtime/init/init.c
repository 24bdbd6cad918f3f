/*
 * ocimig-init: the last stage of a container's start, and the only code of ocimig that runs inside
 * its namespaces. It decides nothing. The launcher (runtime/launch.py) hands it a list of steps over
 * a socket; it carries them out in order and becomes the container's process. It runs from a sealed
 * memfd, so that nothing inside can overwrite it, and touches the container's files only through
 * descriptors that openat2(2) resolved inside the root.
 *
 * argv: ocimig-init SOCKET FIRST, where SOCKET is the descriptor of the launcher's stream and every
 * descriptor from FIRST on is closed. The bytes on the socket are described in runtime/sync.py, the
 * steps in runtime/steps.py: one function here for one function there.
 */
#include "init.h"

#define MAGIC 0x31494f43
#define PLAN_MAX (64u << 20)

static step *const steps[] = { /* in the order of their numbers in runtime/steps.py, from 1 */
	step_join, step_unshare, step_sync, step_fork, step_write, step_become_root, step_setsid,
	step_keyring, step_hostname, step_loopback, step_propagate, step_root, step_mount, step_bind,
	step_symlink, step_device, step_mask, step_readonly, step_attr, step_console, step_pivot,
	step_hook, step_mkdir, step_cwd, step_credentials, step_umask, step_no_new_privs, step_seccomp,
	step_personality, step_scheduler, step_ioprio, step_lookup, step_ready, step_wait_fifo, step_exec,
	step_exit, step_open, step_enter_cgroup, step_home,
};

static void start_clean(void)
{
	struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } usual = { 0 };
	sigset_t none;

	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "ocimig-init", 0, 0, 0);
	for (int n = 1; n < 65; n++) /* not signal(3): the C library keeps two numbers to itself */
		syscall(SYS_rt_sigaction, n, &usual, NULL, sizeof usual.mask);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, 0);
	umask(0);
}

int main(int argc, char **argv)
{
	struct { uint32_t magic, fds, opens, length; } head;

	if (argc > 2 && !strcmp(argv[1], "arm"))
		return arm(argc, argv);
	if (argc != 3)
		return 125;
	sock = atoi(argv[1]);
	first_fd = atoi(argv[2]);
	start_clean();
	close_others(sock);
	fcntl(sock, F_SETFD, FD_CLOEXEC);
	read_exactly(&head, sizeof head);
	if (head.magic != MAGIC || head.length > PLAN_MAX || head.fds > 65536 || head.opens > 65536)
		errno = EPROTO, fail("this is not a plan");
	receive_fds(head.fds, head.opens);
	char *plan = malloc(head.length + 1);
	if (!plan)
		fail("out of memory");
	read_exactly(plan, head.length);
	rootfd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (struct reader all = { plan, plan + head.length }; all.at < all.end; step_number++) {
		uint64_t op = num(&all), length = num(&all);
		if (length > (uint64_t)(all.end - all.at) || op < 1 || op > sizeof steps / sizeof *steps)
			errno = EPROTO, fail("the plan is cut short or of another version");
		struct reader one = { all.at, all.at + length };
		all.at += length;
		steps[op - 1](&one);
	}
	errno = EPROTO;
	fail("the plan has no end");
}
