/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of vmem and objcache share: a check that says where it failed. */
#ifndef NVMALLOC_TEST_VMEM_H
#define NVMALLOC_TEST_VMEM_H

#include "objcache.h"
#include "vmem.h"

#include <stdint.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(cond)                                                                      \
    do {                                                                                 \
        if (!(cond)) {                                                                   \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__,     \
                    #cond);                                                              \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

#define CHECK_ARENA(vmp)                                                                 \
    do {                                                                                 \
        char why_[256];                                                                  \
        if (!vmem_check(vmp, why_, sizeof(why_))) {                                      \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, why_);      \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

/* Flushed at once: a child that is forked later would print it again. */
#define RUN(test)                                                                        \
    do {                                                                                 \
        test();                                                                          \
        printf("ok %s\n", #test);                                                        \
        fflush(stdout);                                                                  \
    } while (0)

#define ADDR(x) ((void *)(uintptr_t)(x))

static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Does func abort, and say all of the texts on stderr? */
static inline void check_aborts(void (*func)(void), const char *const *texts)
{
    int fds[2];
    char out[2048];
    size_t len = 0;
    int status;

    CHECK(pipe(fds) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        func();
        _exit(0);
    }
    close(fds[1]);
    for (ssize_t n; len < sizeof(out) - 1; len += (size_t)n) {
        n = read(fds[0], out + len, sizeof(out) - 1 - len);
        if (n <= 0)
            break;
    }
    out[len] = '\0';
    close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    for (; *texts != NULL; texts++) {
        if (strstr(out, *texts) == NULL)
            fprintf(stderr, "expected \"%s\" in: %s", *texts, out);
        CHECK(strstr(out, *texts) != NULL);
    }
}

#endif
