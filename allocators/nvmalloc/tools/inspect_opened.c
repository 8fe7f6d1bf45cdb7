/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_opened.c - see inspect_opened.h. */
#include "inspect_opened.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nvmalloc.h"

#define PATIENCE_S   60u
#define ANSWER_BYTES 4096u

static struct json_object *error_of(const char *text)
{
    struct json_object *answer = json_object_new_object();
    json_object_object_add(answer, "error", json_object_new_string(text));
    return answer;
}

static struct json_object *describe(nvm_heap *heap)
{
    struct nvm_heap_stats stats;
    struct json_object *answer = json_object_new_object();
    nvm_rebuild(heap);
    int error = nvm_check(heap);
    json_object_object_add(answer, "check",
                           json_object_new_string(error == 0 ? "ok" : nvm_error()));
    nvm_stats(heap, &stats);
    const struct {
        const char *key;
        uint64_t value;
    } figures[] = {
        {"live_blocks", stats.live_blocks},
        {"live_bytes", stats.live_bytes},
        {"used_bytes", stats.used_bytes},
        {"replayed", stats.replayed},
        {"quarantined_bytes", stats.quarantined_bytes},
    };
    for (unsigned i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
        json_object_object_add(answer, figures[i].key,
                               json_object_new_uint64(figures[i].value));
    return answer;
}

/* The child's part. */
static struct json_object *open_copy(const char *path)
{
    struct stat status;
    nvm_heap *heap;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        return error_of(strerror(errno));
    void *base = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return error_of(strerror(errno));
    if (nvm_attach(base, (size_t)status.st_size, NULL, &heap) != 0)
        return error_of(nvm_error());
    return describe(heap);
}

static void answer_and_exit(const char *path, int to)
{
    alarm(PATIENCE_S);
    const char *text =
        json_object_to_json_string_ext(open_copy(path), JSON_C_TO_STRING_PLAIN);
    size_t length = strlen(text);
    ssize_t written = write(to, text, length); /* a pipe takes it whole */
    _exit(written == (ssize_t)length ? 0 : 1);
}

static struct json_object *judge(int status, const char *answer)
{
    char text[160];
    struct json_object *document =
        WIFEXITED(status) && WEXITSTATUS(status) == 0 ? json_tokener_parse(answer) : NULL;
    if (document != NULL)
        return document;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(text, sizeof(text), "it took longer than %u s", PATIENCE_S);
    else if (WIFSIGNALED(status))
        snprintf(text, sizeof(text),
                 "signal %d ended it; that is a fault of nvmalloc, please report it with "
                 "the file",
                 WTERMSIG(status));
    else
        snprintf(text, sizeof(text), "it gave no answer");
    return error_of(text);
}

struct json_object *inspect_opened(const char *path)
{
    char answer[ANSWER_BYTES];
    size_t length = 0;
    int ends[2], status;
    if (pipe(ends) != 0)
        return error_of(strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        answer_and_exit(path, ends[1]);
    }
    close(ends[1]);
    while (child > 0 && length < sizeof(answer) - 1) {
        ssize_t got = read(ends[0], answer + length, sizeof(answer) - 1 - length);
        if (got <= 0 && !(got < 0 && errno == EINTR))
            break;
        length += got > 0 ? (size_t)got : 0;
    }
    answer[length] = '\0';
    close(ends[0]);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return error_of(strerror(errno));
    return judge(status, answer);
}
