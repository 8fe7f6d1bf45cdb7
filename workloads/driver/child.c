// SPDX-License-Identifier: Apache-2.0
/*
 * child.c - see child.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "child.h"

enum {
    dying_seconds = 5,
};

static volatile sig_atomic_t caught;

static void note_signal(int number)
{
    caught = number;
}

void nvd_child_catch_signals(void)
{
    struct sigaction action = {.sa_handler = note_signal};
    sigset_t blocked;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
}

int nvd_child_signal(void)
{
    return caught;
}

double nvd_child_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* In the child, between fork and exec. */
static void become(const char *const argv[], pid_t parent, int out)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);            /* the parent died before the line above */
    signal(SIGINT, SIG_IGN); /* a Ctrl-C is the parent's to handle */
    signal(SIGTERM, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(out, STDOUT_FILENO) >= 0)
        execv("/proc/self/exe", (char *const *)argv);
    _exit(1);
}

int nvd_child_start(struct nvd_child *child, const char *const argv[])
{
    int ends[2];
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    pid_t pid = fork();
    if (pid < 0) {
        int error = errno;
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    if (pid == 0)
        become(argv, parent, ends[1]);
    close(ends[1]);
    child->pid = pid;
    child->out = ends[0];
    child->length = 0;
    return 0;
}

/* Takes the first whole line out of the buffer. */
static bool take_line(struct nvd_child *child, struct json_object **document)
{
    char *end = memchr(child->buffer, '\n', child->length);
    if (end == NULL)
        return false;
    *end = '\0';
    *document = json_tokener_parse(child->buffer);
    size_t used = (size_t)(end + 1 - child->buffer);
    child->length -= used;
    memmove(child->buffer, end + 1, child->length);
    return true;
}

/* Waits until there is something to read, or for nothing but the deadline. */
static enum nvd_child_event wait_readable(const struct nvd_child *child, double deadline)
{
    sigset_t open_mask;
    sigemptyset(&open_mask);
    struct pollfd poll_out = {.fd = child->out, .events = POLLIN};
    for (;;) {
        double left = deadline - nvd_child_now();
        if (left < 0)
            left = 0;
        struct timespec timeout = {(time_t)left,
                                   (long)((left - (double)(time_t)left) * 1e9)};
        int ready = ppoll(&poll_out, 1, &timeout, &open_mask);
        if (caught != 0)
            return NVD_CHILD_INTERRUPTED;
        if (ready > 0)
            return NVD_CHILD_LINE;
        if (ready == 0)
            return NVD_CHILD_TIMEOUT;
        if (errno != EINTR)
            return NVD_CHILD_ENDED;
    }
}

enum nvd_child_event nvd_child_next(struct nvd_child *child, double deadline,
                                    struct json_object **document)
{
    *document = NULL;
    for (;;) {
        if (take_line(child, document)) {
            if (*document != NULL)
                return NVD_CHILD_LINE;
            continue; /* not ours: a library that prints */
        }
        if (child->length == sizeof child->buffer)
            child->length = 0; /* a line longer than any of ours */
        enum nvd_child_event event = wait_readable(child, deadline);
        if (event != NVD_CHILD_LINE)
            return event;
        ssize_t got = read(child->out, child->buffer + child->length,
                           sizeof child->buffer - child->length);
        if (got <= 0)
            return NVD_CHILD_ENDED;
        child->length += (size_t)got;
    }
}

int nvd_child_finish(struct nvd_child *child, bool kill_it)
{
    int status = 0;
    double patience = nvd_child_now() + dying_seconds;
    const struct timespec nap = {0, 200 * 1000};
    while (!kill_it && waitpid(child->pid, &status, WNOHANG) == 0) {
        /* Its output has ended, so it should be gone; a library's exit handler
           may think otherwise. */
        if (nvd_child_now() < patience)
            nanosleep(&nap, NULL);
        else
            kill_it = true;
    }
    if (kill_it) {
        kill(child->pid, SIGKILL);
        while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    close(child->out);
    child->pid = 0;
    return status;
}

const char *nvd_document_type(struct json_object *document)
{
    struct json_object *type;
    if (!json_object_object_get_ex(document, "type", &type))
        return "";
    const char *text = json_object_get_string(type);
    return text != NULL ? text : "";
}
