/* The container's file system: mounts, devices, what is hidden, and the change of the root. */
#include "init.h"
#include <dirent.h>
#include <sys/sysmacros.h>

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

void step_propagate(struct reader *r)
{
	if (mount("", "/", "", num(r), 0) < 0)
		fail("propagation of /");
}

void step_root(struct reader *r)
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
	close(rootfd); /* of the host, or the top of the namespace: nothing may go through it any more */
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

/*
 * fsconfig(2) takes 255 bytes a value, mount(2) a page for all: the lower directories of an overlay
 * may be longer than the one. NULL where they are not, else the options in one line.
 */
static char *long_options(char **options)
{
	size_t length = 1, longest = 0;
	char *line;

	for (char **each = options; *each; each++) {
		size_t n = strlen(*each);
		longest = n > longest ? n : longest;
		length += n + 1;
	}
	if (longest < 256)
		return NULL;
	if (!(line = calloc(1, length)))
		fail("out of memory");
	for (; *options; options++)
		strcat(strcat(line, *options), options[1] ? "," : "");
	return line;
}

/* By mount(2), through the descriptor of the mount point; what lies there then. */
static int mount_by_line(const char *type, const char *source, const char *target, int to, char *line,
			 uint64_t attributes)
{
	char point[32];

	snprintf(point, sizeof point, "/proc/self/fd/%d", to);
	if (mount(source, point, type, 0, line) < 0)
		fail("mount %s on %s", type, target);
	int tree = inside(target, O_PATH, 0);
	if (tree < 0 || set_attr(tree, attributes, 0, 0, 0) < 0)
		fail("options of the mount on %s", target);
	return tree;
}

void step_mount(struct reader *r)
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
	char *line = long_options(options);
	int tree = line ? mount_by_line(type, source, target, to, line, attributes)
			: new_mount(type, source, options, copy_up ? attributes & ~MOUNT_ATTR_RDONLY : attributes);
	if (copy_up && !line) {
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
	if (!line && attach(tree, to) < 0)
		fail("mount %s on %s", type, target);
	if (set_attr(tree, 0, 0, propagation, 0) < 0)
		fail("propagation of %s", target);
	close(tree), close(to);
}

void step_bind(struct reader *r)
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
	close(to), close(tree);
}

void step_symlink(struct reader *r)
{
	char *content = str(r), *path = str(r);
	const char *name;
	int parent = make_parent(path, &name);

	if (parent < 0 || (symlinkat(content, parent, name) < 0 && errno != EEXIST))
		fail("link %s", path);
	close(parent);
}

void step_device(struct reader *r)
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
void step_mask(struct reader *r)
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

void step_readonly(struct reader *r)
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

void step_attr(struct reader *r)
{
	char *path = str(r);
	int top = inside(path, O_PATH, 0);
	uint64_t set = num(r);

	if (top < 0 || set_attr(top, set, 0, num(r), 0) < 0)
		fail("options of the mount on %s", path);
	close(top);
}

void step_mkdir(struct reader *r)
{
	char *path = str(r);
	int made = make_inside(path, 1, 0755);

	if (made < 0)
		fail("mkdir %s", path);
	close(made);
}

void step_pivot(struct reader *r)
{
	uint64_t how = num(r);

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
