/* Paths inside the container's root: resolved by openat2(2), so that no link of its leads out of it. */
#include "init.h"

#define INSIDE (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

int rootfd = -1;

/* ---- kernel calls without a wrapper in older C libraries ---- */

int open_how(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
	int fd;

	do /* EAGAIN: a rename raced with the walk; openat2(2) says to try again */
		fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
	while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd;
}

int attach(int tree, int target)
{
	return syscall(SYS_move_mount, tree, "", target, "",
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

int inside(const char *path, uint64_t flags, uint64_t resolve)
{
	return open_how(rootfd, *path ? path : "/", flags, INSIDE | resolve);
}

/*
 * Open `path` inside the root, making what is missing: directories on the way, and at the end a
 * directory or (is_dir == 0) an empty file. A dangling link is followed by hand, inside the root.
 */
int make_inside(const char *wanted, int is_dir, mode_t mode)
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
			int error = errno;
			close(parent);
			*end = saved;
			if (++links > 40)
				return errno = ELOOP, -1;
			if (n < 0 && error == EINVAL) /* no link: another start has made it just now */
				goto again;
			if (n <= 0)
				return errno = ENOENT, -1;
			link[n] = 0;
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
int make_parent(const char *path, const char **name)
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

int is_dir(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}
