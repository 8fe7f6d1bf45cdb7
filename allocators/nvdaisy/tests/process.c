/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "nvmalloc.h"
#include "p_mmap.h"

static char folder[256];
static char path[320];
static uint64_t kill_at; /* 0: not armed */
static uint64_t seen;

void step_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: not so: %s (%s)\n", file, line, condition, p_error());
    fflush(stderr);
    _exit(1);
}

const char *heap_path(void)
{
    return path;
}

int heap_setup(void **state)
{
    (void)state;
    const char *where = getenv("NVC_TEST_DIR");
    if (where == NULL)
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir;
    snprintf(folder, sizeof folder, "%s/daisy-XXXXXX", where);
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/heap", folder);
    return setenv("P_HEAP", path, 1);
}

int heap_teardown(void **state)
{
    (void)state;
    DIR *open_folder = opendir(folder);
    struct dirent *entry;
    while (open_folder != NULL && (entry = readdir(open_folder)) != NULL)
        unlinkat(dirfd(open_folder), entry->d_name, 0);
    if (open_folder != NULL)
        closedir(open_folder);
    return rmdir(folder); /* fails if more than files was left */
}

static int status_of(step_fn *step, void *context)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* cmocka would go on with the tests in here. */
        static const int deadly[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
        for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
            signal(deadly[i], SIG_DFL);
        step(context);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

void run_step(step_fn *step, void *context)
{
    int status = status_of(step, context);
    if (status != 0)
        fail_msg("the step ended with wait status %#x", (unsigned)status);
}

static void die_at_event(void *context, int kind, const void *address, size_t length)
{
    (void)context, (void)kind, (void)address, (void)length;
    if (++seen == kill_at)
        raise(SIGKILL);
}

void arm_kill(void)
{
    seen = 0;
    if (kill_at != 0)
        nvm_observe(die_at_event, NULL);
}

bool run_killed(step_fn *step, void *context, uint64_t event)
{
    kill_at = event;
    int status = status_of(step, context);
    kill_at = 0;
    if (status == 0)
        return false;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("killed at event %llu, the step ended with wait status %#x",
                 (unsigned long long)event, (unsigned)status);
    return true;
}

uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
