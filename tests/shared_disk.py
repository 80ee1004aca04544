"""A shared file system that misbehaves: a library that is preloaded into a process under test.

`build` compiles it. What it does is told by environment variables, for paths that contain the text
of ``SHIM_ONLY``:

* ``SHIM_LOSE``: of every so many renames, one says that it moved the file and did not.
* ``SHIM_TWICE``: of every so many renames, one moves the file and says that there was none, as a
  request that is sent twice does.
* ``SHIM_LATE``: milliseconds that each rename and each opening of a file takes longer.
* ``SHIM_FULL``: writing says that the disk is full.
* ``SHIM_CLOCK``: seconds that the clock of the machine is ahead of others'.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long setting(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

static int is_meant(const char *path) {
  const char *only = getenv("SHIM_ONLY");
  return !only || (path && strstr(path, only));
}

static void be_late(const char *path) {
  long late = setting("SHIM_LATE");
  if (late && is_meant(path)) usleep(1000 * late);
}

static int is_turn(const char *name) {
  static int count = 0;
  long every = setting(name);
  return every && __sync_add_and_fetch(&count, 1) % every == 0;
}

int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (!real) real = dlsym(RTLD_NEXT, "rename");
  be_late(to);
  if (is_meant(to) && is_turn("SHIM_LOSE")) return 0;
  if (is_meant(to) && is_turn("SHIM_TWICE")) {
    if (real(from, to)) return -1;
    errno = ENOENT;
    return -1;
  }
  return real(from, to);
}

static int opened(const char *name, const char *path, int flags, mode_t mode) {
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
  be_late(path);
  if (setting("SHIM_FULL") && is_meant(path) && (flags & O_CREAT)) {
    errno = ENOSPC;
    return -1;
  }
  return real(path, flags, mode);
}

#define OPEN(name)                                   \
  int name(const char *path, int flags, ...) {       \
    va_list rest;                                    \
    va_start(rest, flags);                           \
    mode_t mode = va_arg(rest, int);                 \
    va_end(rest);                                    \
    return opened(#name, path, flags, mode);         \
  }
OPEN(open)
OPEN(open64)

int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(id, now);
  if (id == CLOCK_REALTIME) now->tv_sec += setting("SHIM_CLOCK");
  return code;
}
"""


def build(folder: Path) -> Path:
    """Compile the library; the test is skipped where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SOURCE)
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(words, check=True, capture_output=True)
    return library
