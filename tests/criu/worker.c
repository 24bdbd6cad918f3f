/* A program to checkpoint, in several modes. Static, no library but libc, everything it knows it prints. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void nap(void) {
  struct timespec t = {0, 20000000};
  nanosleep(&t, NULL);
}

/* count MB: "number checksum" again and again, over memory that was filled once and is never written. */
static int count(size_t size) {
  unsigned char *memory = malloc(size);
  for (size_t i = 0; i < size; i++) memory[i] = (i * 2654435761u) >> 13;
  for (unsigned long number = 0;; number++) {
    unsigned long sum = 0;
    for (size_t i = 0; i < size; i += 61) sum = sum * 31 + memory[i];
    printf("%lu %lx\n", number, sum);
    nap();
  }
}

/* idle MB: "0 checksum" of memory that is not touched again until there is a file /go, then "1 checksum". */
static int idle(size_t size) {
  unsigned char *memory = malloc(size);
  for (size_t i = 0; i < size; i++) memory[i] = (i * 2654435761u) >> 13;
  for (int number = 0; number < 2; number++) {
    unsigned long sum = 0;
    while (number && access("/go", F_OK)) nap();
    for (size_t i = 0; i < size; i += 61) sum = sum * 31 + memory[i];
    printf("%d %lx\n", number, sum);
  }
  for (;;) nap();
}

/* forks MB: beside memory that is never touched again, a child after the other; how many, and what they say. */
static int forks(size_t size) {
  unsigned char *memory = malloc(size);
  memset(memory, 1, size);
  for (int number = 0;; number++) {
    int status;
    pid_t child = fork();
    if (!child) _exit(7);
    if (waitpid(child, &status, 0) != child) return 1;
    printf("%d %x\n", number, WEXITSTATUS(status));
  }
}

/* serve PORT: every byte that comes is answered by the next number, on connections one after another. */
static int serve(int port) {
  int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 8)) return 1;
  printf("listening\n");
  for (unsigned long number = 0;;) {
    int peer = accept(listener, NULL, NULL);
    char byte;
    for (ssize_t size; peer >= 0 && (size = read(peer, &byte, 1));) {
      if (size == 1) dprintf(peer, "%lu\n", ++number);
      else if (errno == EINTR || errno == EPERM) nap(); /* a socket in repair mode: CRIU was killed */
      else break;
    }
    close(peer);
  }
}

/* ring: keeps an io_uring open, which CRIU cannot save. */
static int ring(void) {
  char parameters[120] = {0};
  long fd = syscall(SYS_io_uring_setup, 4, parameters);
  printf(fd < 0 ? "no io_uring\n" : "ring\n");
  for (;;) nap();
}

/* family: a child, a zombie and a pipe between parent and child; the child counts, the parent prints. */
static int family(void) {
  int line[2];
  if (pipe(line)) return 1;
  if (!fork()) _exit(3); /* never waited for: a zombie */
  if (!fork()) {
    for (unsigned long number = 0;; number++) {
      dprintf(line[1], "%lu\n", number);
      nap();
    }
  }
  for (char buffer[4096];;) {
    ssize_t size = read(line[0], buffer, sizeof buffer);
    if (size <= 0) return 1;
    fwrite(buffer, 1, size, stdout);
  }
}

/* share MB [memfd|sysv]: a child counts in memory that both share, the parent prints that and a checksum of the rest. */
static int share(size_t size, const char *kind) {
  int fd = !strcmp(kind, "memfd") ? syscall(SYS_memfd_create, "shared", 0) : -1;
  unsigned char *memory;
  if (fd >= 0 && ftruncate(fd, size -= 3000)) return 1; /* it ends within a page */
  if (!strcmp(kind, "sysv")) memory = shmat(shmget(IPC_PRIVATE, size, 0600), NULL, 0);
  else memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
  if (memory == (void *)-1) return 1;
  volatile unsigned long *number = (volatile unsigned long *)memory;
  /* every second megabyte, so that there are holes */
  for (size_t i = 4096; i < size; i++)
    if (!(i >> 20 & 1)) memory[i] = (i * 2654435761u) >> 13;
  if (!fork())
    for (;; nap()) ++*number;
  for (unsigned long shown = 0;; nap()) {
    unsigned long sum = 0;
    if (*number <= shown) continue;
    for (size_t i = 4096; i < size; i += 61)
      if (!(i >> 20 & 1)) sum = sum * 31 + memory[i]; /* reading would fill a hole */
    printf("%lu %lx\n", shown++, sum);
  }
}

static void *keep(void *counted) {
  volatile unsigned long *shown = counted, here[2048]; /* four pages of its stack */
  for (size_t i = 0; i < 2048; i++) here[i] = i * 2654435761u;
  for (;; nap()) {
    unsigned long sum = 0;
    for (size_t i = 0; i < 2048; i++) sum = sum * 31 + here[i];
    *shown = sum;
  }
}

/* threads N: each adds up what is on its own stack, again and again; the first prints all sums as one. */
static int threads(int count) {
  static unsigned long sums[64];
  for (int i = 0; i < count && i < 64; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, keep, sums + i)) return 1;
  }
  sleep(1);
  for (unsigned long number = 0;; number++) {
    unsigned long sum = 0;
    for (int i = 0; i < count; i++) sum = sum * 31 + *(volatile unsigned long *)(sums + i);
    printf("%lu %lx\n", number, sum);
    nap();
  }
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "count";
  long number = argc > 2 ? atol(argv[2]) : 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (!strcmp(mode, "count")) return count((size_t)number << 20);
  if (!strcmp(mode, "forks")) return forks((size_t)number << 20);
  if (!strcmp(mode, "idle")) return idle((size_t)number << 20);
  if (!strcmp(mode, "serve")) return serve(number);
  if (!strcmp(mode, "ring")) return ring();
  if (!strcmp(mode, "family")) return family();
  if (!strcmp(mode, "threads")) return threads(number);
  if (!strcmp(mode, "share")) return share((size_t)number << 20, argc > 3 ? argv[3] : "");
  return 2;
}
