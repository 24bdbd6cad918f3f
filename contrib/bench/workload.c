/* What the migration benchmark moves, and what watches it from outside. Static, no library but libc.
 *
 *   workload serve PORT MIB DIRTY HOT random|text   the container's only process
 *   workload ask ADDRESS PORT                       the client, in its own place on the network
 *
 * A request is 8 bytes, the number of the request; the reply is 16: the number again, and how many
 * replies the server ever gave. Both grow by one: a lost or repeated byte of either direction shows.
 * All in host byte order: both ends are the same machine.
 *
 * The server keeps MIB of memory, and writes to DIRTY pages a second, anywhere in the first HOT MiB. Each
 * page begins with its number and how often it was written, the rest is told by its number alone. Asked
 * with CHECK it reads everything and answers how many pages are not as they must be.
 *
 * The client sends each millisecond, whether replies come or not. A line on its standard input makes it
 * print what it saw since the last such line, as JSON; "check" asks the server first; the end of its input
 * ends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define WORDS (PAGE / 8)
#define CHECK UINT64_MAX
#define TICK 1000000L /* ns */
#define PATIENCE 60.0 /* s without a reply after which the connection counts as dead */

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static uint64_t next(uint64_t *state) { /* xorshift64: no page of it compresses */
  *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
  return *state;
}

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "workload: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* -- the server */

static uint64_t *memory, pages, hot, writes, replies;
static uint32_t *written; /* how often each page was: kept apart, so that a page that is old shows */
static int text;

static uint64_t word(uint64_t page, uint64_t index, uint64_t *state) {
  return text ? 0x6f20656c62617420 + (page * WORDS + index) % 1000 : next(state);
}

static void fill(void) {
  for (uint64_t page = 0; page < pages; page++) {
    uint64_t *at = memory + page * WORDS, state = page + 0x9e3779b97f4a7c15;
    at[0] = page, at[1] = 0;
    for (uint64_t i = 2; i < WORDS; i++) at[i] = word(page, i, &state);
  }
}

static uint64_t wrong(void) {
  uint64_t bad = 0, sum = 0;
  for (uint64_t page = 0; page < pages; page++) {
    uint64_t *at = memory + page * WORDS, state = page + 0x9e3779b97f4a7c15;
    int right = at[0] == page && at[1] == written[page];
    for (uint64_t i = 2; i < WORDS; i++) right &= at[i] == word(page, i, &state);
    bad += !right, sum += written[page];
  }
  return bad + (sum != writes);
}

static void dirty(uint64_t count) {
  static uint64_t state = 88172645463325252;
  while (hot && count--) {
    uint64_t page = next(&state) % hot;
    memory[page * WORDS + 1] = ++written[page], writes++;
  }
}

/* Take what there is of requests and answer each; false when the connection ended. */
static int answer(int peer) {
  static unsigned char in[1 << 16];
  static size_t have;
  ssize_t size = read(peer, in + have, sizeof in - have);
  if (size == 0) return 0;
  if (size < 0) return errno == EAGAIN || errno == EINTR || errno == EPERM; /* EPERM: in repair mode */
  have += size;
  size_t used = 0;
  for (; have - used >= 8; used += 8) {
    uint64_t out[2];
    memcpy(out, in + used, 8);
    out[1] = out[0] == CHECK ? wrong() : ++replies;
    if (send(peer, out, sizeof out, MSG_NOSIGNAL) != sizeof out) return 0;
  }
  memmove(in, in + used, have -= used);
  return 1;
}

static _Noreturn void serve(int port, uint64_t mib, uint64_t rate, uint64_t hot_mib) {
  pages = mib * 256, hot = hot_mib < mib ? hot_mib * 256 : pages;
  memory = mmap(NULL, pages * PAGE + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  written = calloc(pages + 1, sizeof *written);
  if (memory == MAP_FAILED || !written) fail("memory");
  fill();
  int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), peer = -1;
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 8)) fail("listen");
  for (int64_t turn = now(), due = 0;;) {
    int64_t left = turn - now();
    if (left <= 0) { /* a late turn makes up for nothing: the rate is of time that it ran */
      due += rate * TICK, dirty(due / 1000000000L), due %= 1000000000L;
      turn = now() + TICK, left = TICK;
    }
    struct timespec wait = {0, left};
    struct pollfd look[2] = {{.fd = listener, .events = POLLIN}, {.fd = peer, .events = POLLIN}};
    if (ppoll(look, 2, &wait, NULL) <= 0) continue;
    if (peer >= 0 && look[1].revents && !answer(peer)) close(peer), peer = -1;
    if (peer < 0 && look[0].revents & POLLIN) {
      peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
  }
}

/* -- the client */

static uint64_t sent, received, counter;
static int64_t before, gap, gap_end, began;
static uint64_t since; /* replies since the last report */
static char error[128];

static void heed(const uint64_t reply[2]) {
  int64_t at = now();
  if (at - before > gap) gap = at - before, gap_end = at;
  before = at, since++;
  if (reply[0] != received + 1)
    snprintf(error, sizeof error, "reply %lu came after %lu", reply[0], received);
  else if (counter && reply[1] != counter + 1)
    snprintf(error, sizeof error, "the server's count went from %lu to %lu", counter, reply[1]);
  received = reply[0], counter = reply[1];
}

static void report(int64_t pages_wrong) {
  printf("{\"replies\": %lu, \"gap_ms\": %.3f, \"gap_end\": %.6f, \"seconds\": %.3f, \"outstanding\": %lu, "
         "\"wrong_pages\": %ld, \"error\": \"%s\"}\n",
         since, gap / 1e6, gap_end / 1e9, (now() - began) / 1e9, sent - received, pages_wrong, error);
  fflush(stdout);
  gap = 0, since = 0, began = now();
}

/* Read what came, whole replies only; the number of wrong pages when that was asked for, else -1. */
static int64_t take(int server) {
  static unsigned char in[1 << 16];
  static size_t have;
  int64_t pages_wrong = -1;
  ssize_t size = recv(server, in + have, sizeof in - have, MSG_DONTWAIT);
  if (size == 0) snprintf(error, sizeof error, "the server closed the connection");
  else if (size < 0 && errno != EAGAIN && errno != EINTR) snprintf(error, sizeof error, "%s", strerror(errno));
  if (size <= 0) return -1;
  have += size;
  size_t used = 0;
  for (; have - used >= 16 && !*error; used += 16) {
    uint64_t reply[2];
    memcpy(reply, in + used, 16);
    if (reply[0] == CHECK) pages_wrong = reply[1];
    else heed(reply);
  }
  memmove(in, in + used, have -= used);
  return pages_wrong;
}

/* Ask for a check once every reply is there: what is asked meanwhile would wait for it. */
static void check(int server) {
  uint64_t request = CHECK;
  struct pollfd look = {.fd = server, .events = POLLIN};
  while (!*error && received < sent && poll(&look, 1, PATIENCE * 1000) > 0) take(server);
  if (send(server, &request, 8, MSG_NOSIGNAL) != 8) fail("send");
  int64_t pages_wrong = -1;
  while (!*error && pages_wrong < 0 && poll(&look, 1, PATIENCE * 1000) > 0) pages_wrong = take(server);
  report(pages_wrong);
  before = now();
}

static void ask(int server) {
  char line[64];
  struct pollfd look[2] = {{.fd = server, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  before = began = now();
  for (int64_t turn = now(); !*error;) {
    int64_t at = now();
    if (at >= turn) {
      uint64_t request = sent + 1;
      ssize_t size = send(server, &request, 8, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (size == 8) sent++;
      else if (size >= 0 || errno != EAGAIN) snprintf(error, sizeof error, "send: %s", strerror(errno));
      turn = at - turn > TICK ? at + TICK : turn + TICK;
    }
    struct timespec wait = {0, turn > at ? turn - at : 0};
    int ready = ppoll(look, 2, &wait, NULL);
    if (at - before > PATIENCE * 1e9) snprintf(error, sizeof error, "no reply for %.0f s", PATIENCE);
    if (ready <= 0) continue;
    if (look[0].revents) take(server);
    if (!look[1].revents) continue;
    ssize_t size = read(0, line, sizeof line - 1);
    if (size <= 0) return;
    line[size] = 0;
    if (!strncmp(line, "check", 5)) check(server);
    else report(-1);
  }
}

static int client(const char *address, int port) {
  int on = 1, server = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (inet_pton(AF_INET, address, &there.sin_addr) != 1) fail(address);
  if (connect(server, (struct sockaddr *)&there, sizeof there)) fail("connect");
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  /* It stands for another machine: work on the hosts may not make it late. */
  struct sched_param priority = {.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &priority)) fprintf(stderr, "workload: no real-time priority\n");
  ask(server);
  report(-1);
  return *error != 0;
}

int main(int argc, char **argv) {
  if (argc == 4 && !strcmp(argv[1], "ask")) return client(argv[2], atoi(argv[3]));
  if (argc == 7 && !strcmp(argv[1], "serve")) {
    text = !strcmp(argv[6], "text");
    serve(atoi(argv[2]), atol(argv[3]), atol(argv[4]), atol(argv[5]));
  }
  fprintf(stderr, "usage: workload serve PORT MIB DIRTY HOT random|text | ask ADDRESS PORT\n");
  return 2;
}
