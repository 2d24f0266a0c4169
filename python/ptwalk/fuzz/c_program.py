"""A finding as a stand-alone C program that shows it on the running kernel.

It needs no privilege: the userfaultfd handles user-mode faults only, and has SIGBUS, so that a
store which would be reported ends in a signal that the program catches.
"""

from __future__ import annotations

from .executor import SETUPS
from .findings import Finding
from .translate import Operation, translate

_HEAD = """\
/*
 * {title}.
 *
 * Made by ptwalk fuzz. Build and run: cc -Wall -o show show.c && ./show
{sides}
 * An access that a userfaultfd is told of ends in SIGBUS here (UFFD_FEATURE_SIGBUS), or in an
 * error of the system call that makes it.
 */
"""

_BODY = r"""#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ul
#define USER_MODE_ONLY 1
#define UFFDIO_API_ 0xc018aa3ful
#define UNUSED __attribute__((unused)) /* a program needs some of what follows */

static int uffd, pagemap, zero, pipes[2], file[128];
static char *source; /* what UFFDIO_COPY copies */
static sigjmp_buf out;

static void caught(int signo) { siglongjmp(out, signo); }

/* Some calls try again for ever, such as a guard install that meets a marker. */
static void late(int signo) {
  static const char text[] = "the next call does not end\n";
  _exit(signo == SIGALRM && write(STDOUT_FILENO, text, sizeof text - 1) < 0);
}

static void need(int works, const char *what) {
  if (works) return;
  printf("cannot run here: %s: %s\n", what, strerror(errno));
  exit(77);
}

/* Prints a step and how it ended; what a call returned is of no interest. */
UNUSED static void show(const char *step, long result) {
  printf("%-64s %s\n", step, result == -1 ? strerror(errno) : "done");
}

/* Loads or stores one byte, and says which signal ended it. */
UNUSED static void touch(const char *step, uintptr_t at, int write) {
  volatile char *p = (volatile char *)at;
  int signo = sigsetjmp(out, 1);
  if (!signo) {
    if (write)
      *p = 1;
    else
      (void)*p;
  }
  printf("%-64s %s\n", step, !signo ? "done" : signo == SIGBUS ? "SIGBUS" : "SIGSEGV");
}

UNUSED static void call(const char *step, unsigned long request, const uint64_t *words, int nr) {
  uint64_t arg[6] = {0};
  memcpy(arg, words, sizeof *words * nr);
  show(step, ioctl(uffd, request, arg));
}
#define IOCTL(step, request, ...)                              \
  do {                                                         \
    const uint64_t words[] = {__VA_ARGS__};                    \
    call(step, request, words, sizeof words / sizeof *words);  \
  } while (0)

/* The kernel loads or stores one byte. */
UNUSED static void touch_by_kernel(const char *step, uintptr_t at, int write_it) {
  show(step, write_it ? read(zero, (void *)at, 1) : write(pipes[1], (void *)at, 1));
}

UNUSED static void close_uffd(const char *step) {
  if (uffd >= 0) close(uffd);
  uffd = -1; /* files made later do not take its number */
  show(step, 0);
}

UNUSED static void make_file(int which, uint64_t size) {
  file[which] = memfd_create("show", MFD_CLOEXEC);
  need(file[which] >= 0 && !ftruncate(file[which], size), "memfd");
}

static void start(uint64_t features) {
  struct sigaction action = {.sa_handler = caught, .sa_flags = SA_NODEFER};
  struct sigaction end = {.sa_handler = late};
  uint64_t api[3] = {0xaa, features, 0};
  setvbuf(stdout, NULL, _IONBF, 0);
  sigaction(SIGBUS, &action, NULL);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGALRM, &end, NULL);
  alarm(2);
  uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
  need(uffd >= 0, "userfaultfd");
  need(!ioctl(uffd, UFFDIO_API_, api), "UFFDIO_API");
  pagemap = open("/proc/self/pagemap", O_RDONLY);
  need(pagemap >= 0, "/proc/self/pagemap");
  source = mmap(NULL, 1024 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  need(source != MAP_FAILED, "mmap");
  zero = open("/dev/zero", O_RDONLY);
  need(zero >= 0 && !pipe(pipes), "/dev/zero and a pipe");
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
"""

_IOCTLS = {
    "register": 0xC020AA00,
    "unregister": 0x8010AA01,
    "wake": 0x8010AA02,
    "writeprotect": 0xC018AA06,
    "copy": 0xC028AA03,
    "zeropage": 0xC020AA04,
    "continue_": 0xC020AA07,
    "poison": 0xC020AA08,
    "move": 0xC028AA05,
}


def _line(text: str, operation: Operation) -> str:  # noqa: PLR0911 -- one for each call
    """Return the C statement of an operation; an empty one where there is none."""
    name, *args = operation
    step = f'"{text}"'
    if name == "access":
        return f"touch({step}, {args[0]:#x}, {int(args[1])});"
    if name == "kernel_access":
        return f"touch_by_kernel({step}, {args[0]:#x}, {int(args[1])});"
    if name == "close":
        return f"close_uffd({step});"
    if name == "file":
        return f"make_file({args[0]}, {args[1]:#x});"
    if name == "mmap":
        at, length, prot, flags, file, offset = args
        fd = -1 if file is None else f"file[{file}]"
        call = f"mmap((void *){at:#x}, {length:#x}, {prot}, {flags:#x}, {fd}, {offset:#x})"
        return f"show({step}, (long){call});"
    if name in ("munmap", "mprotect", "madvise", "mlock", "munlock"):
        more = "".join(f", {arg}" for arg in args[2:])
        return f"show({step}, {name}((void *){args[0]:#x}, {args[1]:#x}{more}));"
    if name == "mremap":
        at, length, new, flags, to = args
        call = f"mremap((void *){at:#x}, {length:#x}, {new:#x}, {flags}, (void *){to:#x})"
        return f"show({step}, (long){call});"
    if name in _IOCTLS:
        words = [f"{arg:#x}" for arg in args]
        if name == "copy":
            words.insert(1, "(uintptr_t)source")
        return f"IOCTL({step}, {_IOCTLS[name]:#x}, {', '.join(words)});"
    if name == "write":
        which, offset, length = args
        return f"show({step}, pwrite(file[{which}], source, {length:#x}, {offset:#x}));"
    if name == "truncate":
        return f"show({step}, ftruncate(file[{args[0]}], {args[1]:#x}));"
    if name == "punch_hole":
        return f"show({step}, fallocate(file[{args[0]}], 3, {args[1]:#x}, {args[2]:#x}));"
    return ""


def c_program_of(finding: Finding) -> bytes | None:
    """Return a C program that shows a finding.

    Returns
    -------
    bytes or None
        C source, which ends with status 77 where userfaultfd is refused. None where a kernel has no
        call for one of the operations, and for bugs of ptwalk itself, which no kernel shows.
    """
    if finding.judge not in ("against", "running-kernel"):
        return None
    both = translate(SETUPS[finding.setup] + finding.program)
    lines = [_line(*each) for each in zip(both.texts, both.operations, strict=True)]
    if not both.whole or not all(lines):
        return None
    sides = "\n".join(f" *   {state}".replace("*/", "* /") for state in finding.states)
    head = _HEAD.format(title=finding.title, sides=f" * What was seen:\n{sides}")
    pages = sorted({(op[1], min(op[2] // 4096, 64)) for op in both.operations if op[0] == "mmap"})
    shown = [f"print_pagemap({at:#x}, {nr});" for at, nr in pages]
    body = "\n".join(f"  {line}" for line in [f"start({both.features:#x});", *lines, *shown])
    return f"{head}\n{_BODY}\nint main(void) {{\n{body}\n  return 0;\n}}\n".encode()
