/* Starts programs by vfork(2), is half of the time in it, and counts them: "number programs". */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char *child[] = {argv[0], "child", NULL};
  if (argc > 1 && !strcmp(argv[1], "child")) return 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (unsigned long number = 0;; number++) {
    pid_t pid = vfork();
    if (!pid) {
      usleep(10000);
      execv(argv[0], child);
      _exit(1);
    }
    waitpid(pid, NULL, 0);
    usleep(10000);
    printf("%lu programs\n", number);
  }
}
