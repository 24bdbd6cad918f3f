/* Loaded into CRIU for a live migration: keeps memory that the destination holds out of a dump, and writes
 * down what it kept out. Reads no memory of the process, decides nothing.
 *
 * CRIU asks the kernel which pages of a mapping have to be saved: ioctl(PAGEMAP_SCAN) of /proc/PID/pagemap, or
 * where the kernel lacks that, pread(2) of the same file; of shared memory by lseek(2). All are asked here
 * first: what lies in the ranges of the file "withhold" (private anonymous memory, no other) is noted in the
 * file "withheld", and CRIU sees the rest. Which pages of a range there are only pread(2) and lseek(2) tell;
 * a range that PAGEMAP_SCAN was to tell of is noted as it is, and whoever named it looks (it takes 6 ms a GiB,
 * beside CRIU and not within). The two files are in the directory that OCIMIG_WITHHELD names;
 * criu_images/withheld.py is the other side:
 *
 *   withhold   "ocimigW1", u64 count, count times {u64 pid, u64 start, u64 end}, sorted, disjoint; put in
 *              place whole (rename) while CRIU waits in query-ext-files, so it is read at the first question
 *              about memory and not before. No such file: nothing is withheld. Another content: CRIU fails.
 *              Shared memory has in place of the pid: bit 63, minor number of the device from bit 40 on,
 *              inode number.
 *   withheld   any number of {u64 pid, u64 start, u64 end}; overlaps are possible. Not writable: CRIU fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define PAGE 4096ul
#define SHARED (1ull << 63)
#define INODE_BITS 40
#define BATCH 512 /* records written to the log at once */

/* include/uapi/linux/fs.h, since Linux 6.7 */
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct region {
	uint64_t start, end, categories;
};
#define SCAN _IOWR('f', 16, struct scan)
#define IS_PRESENT (1ull << 3)
#define IS_SWAPPED (1ull << 4)

/* Documentation/admin-guide/mm/pagemap.rst */
#define ENTRY_GUARD (1ull << 58)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_PRESENT (1ull << 63)

struct range {
	uint64_t pid, start, end;
};
struct head {
	char magic[8];
	uint64_t count;
};

static int (*real_ioctl)(int, unsigned long, void *);
static const struct range *ranges;
static uint64_t count;
static int log_fd = -1;
static struct range batch[BATCH];
static int batched;

static int bad(void)
{
	errno = EUCLEAN; /* CRIU prints it; the file beside it tells the rest */
	return -1;
}

static int check(const struct head *head, uint64_t size)
{
	const struct range *at = (const struct range *)(head + 1);

	if (size < sizeof *head || memcmp(head->magic, "ocimigW1", 8) ||
	    head->count != (size - sizeof *head) / sizeof *at || (size - sizeof *head) % sizeof *at)
		return bad();
	for (uint64_t i = 0; i < head->count; i++, at++)
		if (at->start >= at->end || (at->start | at->end) % PAGE ||
		    (i && (at[-1].pid > at->pid || (at[-1].pid == at->pid && at[-1].end > at->start))))
			return bad();
	return 0;
}

/* 1: there are ranges, 0: there is nothing to withhold (yet), -1: errno. */
static int load(void)
{
	const char *place = getenv("OCIMIG_WITHHELD");
	char path[4096];
	struct stat about;
	void *head;
	int fd;

	if (count || !place)
		return count > 0;
	snprintf(path, sizeof path, "%s/withhold", place);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	if (fstat(fd, &about) || about.st_size < (off_t)sizeof(struct head)) {
		close(fd);
		return bad();
	}
	head = mmap(NULL, about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (head == MAP_FAILED || check(head, about.st_size))
		return -1;
	if (!((struct head *)head)->count) {
		munmap(head, about.st_size);
		return 0;
	}
	snprintf(path, sizeof path, "%s/withheld", place);
	log_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
	if (log_fd < 0)
		return -1;
	/* CRIU hands out low numbers to its children: out of their way, as its own service descriptors are. */
	fd = fcntl(log_fd, F_DUPFD_CLOEXEC, 700);
	if (fd >= 0) {
		close(log_fd);
		log_fd = fd;
	}
	ranges = (const struct range *)((struct head *)head + 1);
	count = ((struct head *)head)->count;
	return 1;
}

/* Whose memory a descriptor of CRIU's tells of; 0 when it is no pagemap of another process. The number is
 * closed and used again for the next process, so it is asked every time: a microsecond. */
static uint64_t whose(int fd)
{
	char link[48], path[64], tail[9];
	unsigned long pid;
	ssize_t size;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	size = readlink(link, path, sizeof path - 1);
	if (size <= 0)
		return 0;
	path[size] = '\0';
	return sscanf(path, "/proc/%lu/%8s", &pid, tail) == 2 && !strcmp(tail, "pagemap") ? pid : 0;
}

/* The first range of `pid` that ends behind `at`; NULL when there is none. */
static const struct range *behind(uint64_t pid, uint64_t at)
{
	uint64_t low = 0, high = count;

	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (ranges[middle].pid < pid || (ranges[middle].pid == pid && ranges[middle].end <= at))
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && ranges[low].pid == pid ? ranges + low : NULL;
}

static int flush(void)
{
	ssize_t size = batched * sizeof *batch;

	batched = 0;
	if (!size || write(log_fd, batch, size) == size)
		return 0;
	errno = EIO;
	return -1;
}

static int note(uint64_t pid, uint64_t start, uint64_t end)
{
	struct range *last = batched ? &batch[batched - 1] : NULL;

	if (last && last->pid == pid && last->end == start) {
		last->end = end;
		return 0;
	}
	if (batched == BATCH && flush())
		return -1;
	batch[batched++] = (struct range){ pid, start, end };
	return 0;
}

/* Answer CRIU piece by piece: from the kernel outside of the ranges, with nothing inside of them. What does
 * not fit is left for CRIU's next question, which begins at walk_end. */
static int answer(int fd, uint64_t pid, struct scan *asked)
{
	uint64_t at = asked->start, used = 0;

	while (at < asked->end && used < asked->vec_len) {
		const struct range *range = behind(pid, at);
		uint64_t stop = asked->end;

		if (range && range->start <= at) {
			stop = range->end < stop ? range->end : stop;
			if (note(pid, at, stop))
				return -1;
		} else {
			struct scan part = *asked;
			int n;

			if (range && range->start < stop)
				stop = range->start;
			part.start = at;
			part.end = stop;
			part.vec += used * sizeof(struct region);
			part.vec_len -= used;
			n = real_ioctl(fd, SCAN, &part);
			if (n < 0)
				return -1;
			used += n;
			stop = part.walk_end;
		}
		at = stop;
	}
	asked->walk_end = at;
	return flush() ? -1 : (int)used;
}

PUBLIC int ioctl(int fd, unsigned long request, ...)
{
	struct scan *scan;
	uint64_t pid;
	va_list rest;
	int loaded;

	va_start(rest, request);
	scan = va_arg(rest, void *);
	va_end(rest);
	if (!real_ioctl)
		real_ioctl = dlsym(RTLD_NEXT, "ioctl");
	/* Other questions (guard regions, a probe of the kernel) have other masks. */
	if (request != SCAN || !(scan->category_anyof_mask & (IS_PRESENT | IS_SWAPPED)) || scan->max_pages)
		return real_ioctl(fd, request, scan);
	pid = whose(fd);
	if (!pid || !(loaded = load()))
		return real_ioctl(fd, request, scan);
	return loaded < 0 ? -1 : answer(fd, pid, scan);
}

/* The same for memory that processes share: CRIU looks for what there is of an object by SEEK_DATA and
 * SEEK_HOLE (criu/shmem.c), and is shown holes. The key of an object is made of its device and
 * inode, with the highest bit set; the runs are offsets. */
PUBLIC off_t lseek64(int fd, off_t at, int whence)
{
	static off_t (*real)(int, off_t, int);
	const struct range *range;
	struct stat about;
	off_t found, end, stop;
	uint64_t key;
	int loaded;

	if (!real)
		real = dlsym(RTLD_NEXT, "lseek64");
	found = real(fd, at, whence);
	if (found < 0 || (whence != SEEK_DATA && whence != SEEK_HOLE) || !(loaded = load()))
		return found;
	if (loaded < 0 || fstat(fd, &about))
		return -1;
	if (major(about.st_dev) || about.st_ino >> INODE_BITS)
		return found;
	key = SHARED | (uint64_t)minor(about.st_dev) << INODE_BITS | about.st_ino;
	if (whence == SEEK_HOLE) {
		range = behind(key, at);
		return range && (off_t)range->start < found ? real(fd, range->start, SEEK_SET) : found;
	}
	while (found >= 0 && (range = behind(key, found)) && (off_t)range->start <= found) {
		stop = real(fd, found, SEEK_HOLE);
		if (stop < 0)
			return -1;
		stop = (stop + PAGE - 1) & -PAGE; /* a memfd may end within a page */
		end = stop < (off_t)range->end ? stop : (off_t)range->end;
		if (note(key, found, end) || flush())
			return -1;
		found = real(fd, end, SEEK_DATA); /* ENXIO: there is no more, which is an answer too */
	}
	return found;
}

/* Kernels before 6.7. A page of zeros that was only read counts as withheld too: harmless, it is held or it
 * is fetched. */
PUBLIC ssize_t pread64(int fd, void *buffer, size_t size, off_t offset)
{
	static ssize_t (*real)(int, void *, size_t, off_t);
	uint64_t pid, at, *entry = buffer;
	ssize_t got;
	int loaded;

	if (!real)
		real = dlsym(RTLD_NEXT, "pread64");
	got = real(fd, buffer, size, offset);
	if (got <= 0 || (got | offset) % sizeof *entry || !getenv("OCIMIG_WITHHELD") || !(pid = whose(fd)))
		return got;
	loaded = load();
	if (loaded <= 0)
		return loaded ? -1 : got;
	at = (uint64_t)offset / sizeof *entry * PAGE;
	for (ssize_t i = got / sizeof *entry; i > 0; i--, at += PAGE, entry++) {
		const struct range *range;

		if (!(*entry & (ENTRY_PRESENT | ENTRY_SWAPPED)) || *entry & ENTRY_GUARD)
			continue;
		range = behind(pid, at);
		if (!range || range->start > at)
			continue;
		if (note(pid, at, at + PAGE))
			return -1;
		*entry &= ~(ENTRY_PRESENT | ENTRY_SWAPPED);
	}
	return flush() ? -1 : got;
}
