/* What all such programs have; what this one does is in main(), at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define USER_MODE_ONLY 1
#define UFFDIO_API_ 0xc018aa3ful
#define PAGEMAP_SCAN_ 0xc0606610ul
#define MOST 128                       /* operations of a setup and a program, and so what they make */
#define MOST_RANGES 1024ul             /* that a scan can find */
#define UNUSED __attribute__((unused)) /* a program needs some of what follows */

static int uffd[MOST], file[MOST], mapped[MOST], pagemap, zero, pipes[2];
static char* source;   /* what UFFDIO_COPY copies, and files are written from */
static uint64_t known; /* UFFD_FEATURE_ bits that the kernel has */
static int waits;      /* accesses and calls wait for the userfaultfd, each in a thread */
static __thread sigjmp_buf out;

enum { CANNOT_RUN = 77, EXITED = 2, ENDLESS = 3 }; /* how processes end */

static void caught(int signo) { siglongjmp(out, signo); }

static int several; /* there are processes besides this one, and one that waits for all */

/* Some calls try again for ever, such as a guard install that meets a marker. */
static void late(int signo) {
  static const char text[] = "the next call does not end\n";
  const int fails = signo == SIGALRM && write(STDOUT_FILENO, text, sizeof text - 1) < 0;
  _exit(several ? ENDLESS : fails);
}

static void need(int works, const char* what) {
  if (works) return;
  printf("cannot run here: %s: %s\n", what, strerror(errno));
  exit(CANNOT_RUN);
}

/* Accesses and calls */

struct attempt {
  const char* step;
  long nr, arg[6]; /* of a system call, or an access as below */
  const char* how; /* it ended */
  volatile int tid, ended;
  struct attempt* next;
};
enum { BY_USER = -1, BY_KERNEL = -2 }; /* an access: its address, and whether it is a store */
static struct attempt* waiting;        /* those that wait, the latest first */

/* Loads or stores one byte, and says how that ended. */
static const char* access_byte(uintptr_t at, int write_it) {
  volatile char* p = (volatile char*)at;
  const int signo = sigsetjmp(out, 1);
  if (signo) return signo == SIGBUS ? "SIGBUS" : "SIGSEGV";
  if (write_it)
    *p = 1;
  else
    (void)*p;
  return "done";
}

static const char* perform(long nr, const long* arg) {
  if (nr == BY_USER) return access_byte(arg[0], arg[1]);
  long done;
  if (nr == BY_KERNEL)
    done = arg[1] ? read(zero, (void*)arg[0], 1) : write(pipes[1], (void*)arg[0], 1);
  else
    done = syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
  return done == -1 ? strerror(errno) : "done";
}

static void* attempt(void* arg) {
  struct attempt* it = arg;
  it->tid = syscall(SYS_gettid);
  it->how = perform(it->nr, it->arg);
  it->ended = 1;
  return NULL;
}

/* Whether an attempt has ended, once it has or its thread sleeps: S for a fault, and D for an
   event, which other things are too for a moment. */
static int ends(const struct attempt* it) {
  char name[64], text[256];
  for (int asleep = 0; asleep < 400; usleep(50)) {
    if (it->ended) return 1;
    if (!it->tid) continue;
    snprintf(name, sizeof name, "/proc/self/task/%d/stat", it->tid);
    const int fd = open(name, O_RDONLY);
    const long length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[length > 0 ? length : 0] = 0;
    const char* state = strrchr(text, ')');
    const char is = state && state[1] ? state[2] : 0;
    asleep = is == 'S' ? 400 : is == 'D' ? asleep + 1 : 0;
  }
  return it->ended;
}

/* Prints which attempts were woken and ended. */
static void go_on(void) {
  for (struct attempt** at = &waiting; *at;) {
    struct attempt* it = *at;
    if (!ends(it)) {
      at = &it->next;
      continue;
    }
    printf("  %-62s %s\n", it->step, it->how);
    *at = it->next;
  }
}

/* Prints a step and how it ended. */
static void say(const char* step, const char* how) {
  printf("%-64s %s\n", step, how);
  go_on();
  alarm(2);
}

/* What a call returned is of no interest. */
UNUSED static void show(const char* step, long result) {
  say(step, result == -1 ? strerror(errno) : "done");
}

UNUSED static void try(const char* step, long nr, const long* arg) {
  if (!waits) return say(step, perform(nr, arg));
  struct attempt* it = calloc(1, sizeof *it);
  need(it != NULL, "memory");
  it->step = step;
  it->nr = nr;
  memcpy(it->arg, arg, sizeof it->arg);
  pthread_t thread;
  errno = pthread_create(&thread, NULL, attempt, it);
  need(!errno, "a thread");
  pthread_detach(thread);
  const int ended = ends(it);
  say(step, ended ? it->how : "waits");
  if (ended) return;
  it->next = waiting;
  waiting = it;
}
#define SYSCALL(step, name, ...)         \
  do {                                   \
    const long words[6] = {__VA_ARGS__}; \
    try(step, SYS_##name, words);        \
  } while (0)

UNUSED static void touch(const char* step, uintptr_t at, int write, int by) {
  try(step, by, (const long[6]){at, write});
}
/* The i-th of n accesses is one of `page` and a store where `write` says so. */
#define TOUCH_MANY(step, at, nr, page, write) \
  for (uint64_t i = 0, n = (nr); i < n; ++i) touch(step, (at) + (page) * PAGE, write, BY_USER)

/* userfaultfd */

/* Asks for the features that the kernel has among those named, or for those as they are. */
UNUSED static void open_uffd(const char* step, int which, uint64_t features, int as_they_are,
                             int flags) {
  uint64_t api[3] = {0xaa, as_they_are ? features : features & known, 0};
  uffd[which] = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
  need(uffd[which] >= 0, "userfaultfd");
  const int refused = ioctl(uffd[which], UFFDIO_API_, api);
  need(as_they_are || !refused, "UFFDIO_API");
  show(step, refused);
}

UNUSED static void close_uffd(const char* step, int which) {
  if (uffd[which] >= 0) close(uffd[which]);
  uffd[which] = -1; /* files made later do not take its number */
  show(step, 0);
}

UNUSED static void call(const char* step, int which, unsigned long request, const uint64_t* words,
                        int nr) {
  uint64_t arg[6] = {0};
  memcpy(arg, words, sizeof *words * nr);
  show(step, ioctl(uffd[which], request, arg));
}
#define IOCTL(step, which, request, ...)                             \
  do {                                                               \
    const uint64_t words[] = {__VA_ARGS__};                          \
    call(step, which, request, words, sizeof words / sizeof *words); \
  } while (0)

static void print_message(int event, const unsigned long* arg) {
  if (event == 0x12)
    printf("  pagefault%s%s%s 0x%lx\n", arg[0] & 1 ? " WRITE" : "", arg[0] & 2 ? " WP" : "",
           arg[0] & 4 ? " MINOR" : "", arg[1]);
  else if (event == 0x14)
    printf("  remap 0x%lx to 0x%lx length 0x%lx\n", arg[0], arg[1], arg[2]);
  else
    printf("  %s 0x%lx-0x%lx\n", event == 0x15 ? "remove" : "unmap", arg[0], arg[1]);
}

/* Prints the messages that wait; what waits for one to be read may send another. */
UNUSED static void read_messages(const char* step, int which) {
  struct {
    uint8_t event, reserved[7];
    unsigned long arg[3];
  } message; /* struct uffd_msg */
  show(step, uffd[which] < 0 ? (errno = EBADF, -1) : 0);
  for (int found = 1; found; go_on()) {
    found = 0;
    for (; read(uffd[which], &message, sizeof message) == sizeof message; found = 1)
      print_message(message.event, message.arg);
  }
}

/* Files */

UNUSED static void make_file(int which, uint64_t size) {
  file[which] = mapped[which] = memfd_create("show", MFD_CLOEXEC);
  need(file[which] >= 0 && !ftruncate(file[which], size), "memfd");
}

/* What is mapped was opened for reading only. */
UNUSED static void make_readonly_file(int which, uint64_t size) {
  char name[64];
  make_file(which, size);
  snprintf(name, sizeof name, "/proc/self/fd/%d", file[which]);
  mapped[which] = open(name, O_RDONLY | O_CLOEXEC);
  need(mapped[which] >= 0, name);
}

/* A file on a disk, where the first store to a page is noted; read(2) reads nothing ahead. */
UNUSED static void make_regular_file(int which, uint64_t size) {
  const char* directory = getenv("TMPDIR");
  char name[4096];
  struct statfs on;
  snprintf(name, sizeof name, "%s/show-XXXXXX", directory ? directory : ".");
  file[which] = mapped[which] = mkstemp(name);
  need(file[which] >= 0 && !unlink(name), name);
  need(!fstatfs(file[which], &on), "fstatfs");
  errno = EINVAL;
  need(on.f_type != 0x01021994 && on.f_type != 0x858458f6, "tmpfs; set TMPDIR to a disk's");
  need(!ftruncate(file[which], size) && !fallocate(file[which], 3, 0, PAGE), "a file with holes");
  posix_fadvise(file[which], 0, 0, POSIX_FADV_RANDOM);
}

/* pagemap */

UNUSED static void scan(const char* step, uintptr_t at, uint64_t length, uint64_t flags,
                        uint64_t inverted, uint64_t mask, uint64_t anyof, uint64_t max_pages) {
  static uint64_t found[MOST_RANGES][3];
  uint64_t arg[12] = {sizeof arg,  flags,     at,       at + length, 0,     (uintptr_t)found,
                      MOST_RANGES, max_pages, inverted, mask,        anyof, 0xff};
  const long nr = ioctl(pagemap, PAGEMAP_SCAN_, arg);
  show(step, nr);
  for (long i = 0; i < nr; ++i)
    printf("  0x%lx-0x%lx categories 0x%lx\n", (unsigned long)found[i][0],
           (unsigned long)found[i][1], (unsigned long)found[i][2]);
  if (nr >= 0) printf("  to 0x%lx\n", (unsigned long)arg[4]);
}

/* Prints what pagemap says of the pages that it says anything of. */
UNUSED static void print_pagemap(uintptr_t at, int pages) {
  for (int i = 0; i < pages; ++i) {
    uint64_t word = 0;
    uintptr_t page = at + i * PAGE;
    if (pread(pagemap, &word, sizeof word, page / PAGE * sizeof word) != sizeof word || !word)
      continue;
    printf("0x%016lx%s%s%s%s%s\n", (unsigned long)page, word >> 63 & 1 ? " present" : "",
           word >> 62 & 1 ? " swap" : "", word >> 61 & 1 ? " file" : "",
           word >> 57 & 1 ? " uffd-wp" : "", word >> 56 & 1 ? " exclusive" : "");
  }
}

/* Processes: all run the same main(), where each step is done by one of them, and not before the
   steps before it. */

static int me;             /* which one this is */
UNUSED static int my_step; /* where it is in main() */
static struct {
  volatile int step, born;
  volatile pid_t pid[MOST];
}* shared;

#define IN(process, action)                       \
  do {                                            \
    if (me == (process)) {                        \
      while (shared->step != my_step) usleep(50); \
      alarm(2);                                   \
      action;                                     \
      alarm(0);                                   \
      if (me == (process)) ++shared->step;        \
    }                                             \
    ++my_step;                                    \
  } while (0)

static void begin_process(int which) {
  for (int i = 0; i < MOST; ++i) {
    if (uffd[i] >= 0) close(uffd[i]); /* that of another process */
    uffd[i] = -1;
  }
  waiting = NULL; /* threads are not forked */
  me = which;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  need(pagemap >= 0, "/proc/self/pagemap");
  if (shared) shared->pid[which] = getpid();
}

/* The child has the parent's parent, which waits for all. */
UNUSED static void fork_process(const char* step, int child) {
  const long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
  need(pid >= 0, "fork");
  if (!pid) {
    begin_process(child);
    shared->born = child;
    return;
  }
  while (shared->born != child) usleep(50);
  show(step, 0);
}

UNUSED static void exit_process(const char* step) {
  show(step, 0);
  _exit(EXITED);
}

/* Waits until all processes have ended; of one that exits its memory is gone then. */
static int attend(void) {
  int status;
  for (pid_t pid; (pid = wait(&status)) > 0;) {
    for (int i = 0; i < MOST; ++i)
      if (shared->pid[i] == pid) shared->pid[i] = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXITED) {
      ++shared->step;
    } else if (status) {
      for (int i = 0; i < MOST; ++i)
        if (shared->pid[i]) kill(shared->pid[i], SIGKILL);
      return WIFEXITED(status) && WEXITSTATUS(status) == ENDLESS ? 0 : CANNOT_RUN;
    }
  }
  return 0;
}

static void start(int processes, int accesses_wait) {
  struct sigaction action = {.sa_handler = caught, .sa_flags = SA_NODEFER};
  struct sigaction end = {.sa_handler = late};
  uint64_t api[3] = {0xaa, 0, 0};
  setvbuf(stdout, NULL, _IONBF, 0);
  sigaction(SIGBUS, &action, NULL);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGALRM, &end, NULL);
  waits = accesses_wait;
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* pages have 4 KiB */
  uffd[0] = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
  need(uffd[0] >= 0, "userfaultfd");
  need(!ioctl(uffd[0], UFFDIO_API_, api), "UFFDIO_API");
  known = api[1];
  close(uffd[0]);
  memset(uffd, -1, sizeof uffd);
  source = mmap(NULL, 1024 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  need(source != MAP_FAILED, "mmap");
  zero = open("/dev/zero", O_RDONLY);
  need(zero >= 0 && !pipe(pipes), "/dev/zero and a pipe");
  several = processes > 1;
  if (several) {
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(shared != MAP_FAILED, "mmap");
    const pid_t pid = fork();
    need(pid >= 0, "fork");
    if (pid) exit(attend());
  }
  begin_process(0);
  alarm(2);
}
