/*
 * The parts of ocimig-init: talk.c speaks with the launcher, inside.c finds and makes paths inside the
 * root, enter.c makes and joins namespaces and cgroups, mounts.c builds the file system, process.c
 * makes the process what it shall be, init.c takes the plan and walks it. arm.c is another program.
 */
#ifndef OCIMIG_INIT_H
#define OCIMIG_INIT_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* <sys/mount.h> and <linux/mount.h> cannot be included together with older C libraries. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MNT_DETACH 2

enum message { MSG_SYNC = 1, MSG_PID, MSG_FD, MSG_ERROR, MSG_WARNING, MSG_ARMED };
enum fd_code { FD_CONSOLE = 1, FD_LISTENER };

struct reader { char *at, *end; }; /* the fields of one step, not yet read */
typedef void step(struct reader *);

/* talk.c: the socket, the descriptors, the fields of a step */
extern int sock, *fds, nfds, room, first_fd, step_number;
extern char *state_json;
extern uint32_t state_length;
void send_message(uint32_t type, const void *data, uint32_t length, int fd);
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void read_exactly(void *data, size_t length);
void receive_fds(uint32_t count, uint32_t opens);
void close_others(int keep);
void wait_for_go(uint32_t code);
uint64_t num(struct reader *);
char *blob(struct reader *, uint64_t *length);
char *str(struct reader *);
char **strings(struct reader *);
int fd_of(struct reader *);
step step_open, step_sync, step_ready, step_wait_fifo;

/* inside.c: paths inside the root */
extern int rootfd;
int open_how(int dir, const char *path, uint64_t flags, uint64_t resolve);
int inside(const char *path, uint64_t flags, uint64_t resolve);
int make_inside(const char *path, int is_dir, mode_t mode);
int make_parent(const char *path, const char **name);
int is_dir(int fd);
int attach(int tree, int target);

/* enter.c, mounts.c, process.c: one function a step, as runtime/steps.py says them */
step step_join, step_unshare, step_enter_cgroup, step_fork, step_write, step_become_root, step_setsid,
	step_keyring, step_hostname, step_loopback;
step step_propagate, step_root, step_mount, step_bind, step_symlink, step_device, step_mask,
	step_readonly, step_attr, step_pivot, step_mkdir;
step step_console, step_hook, step_cwd, step_home, step_credentials, step_umask, step_no_new_privs,
	step_seccomp, step_personality, step_scheduler, step_ioprio, step_lookup, step_exec, step_exit;

/* arm.c: a mode of its own, outside */
int arm(int argc, char **argv);

#endif
