/* SPDX-License-Identifier: Apache-2.0 */
#include "stepped.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define CODE_BYTES 16 /* the longest instruction has 15 */

/* Exit code of a child that may not be traced or can't be started. */
enum { CHILD_NOT_TRACED = 121, CHILD_NO_PROGRAM = 122 };

static bool read_code(pid_t child, uint64_t at, unsigned char code[CODE_BYTES])
{
    for (size_t i = 0; i < CODE_BYTES; i += sizeof(long)) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKTEXT, child, (void *)(uintptr_t)(at + i), NULL);
        if (errno != 0) {
            memset(code + i, 0, CODE_BYTES - i); /* the page may end here */
            return i > 0;
        }
        memcpy(code + i, &word, sizeof word);
    }
    return true;
}

/* Vector stores: vmovntdq, vmovntps, vmovntpd. */
static uint64_t vector_nt_bytes(const unsigned char *code)
{
    unsigned char opcode;
    unsigned width;
    switch (code[0]) {
    case 0x62: /* EVEX: width in bits 5-6 of the third payload byte */
        opcode = code[4];
        width = 16u << (code[3] >> 5 & 3);
        break;
    case 0xc5: /* VEX, two bytes */
        opcode = code[2];
        width = 16u << (code[1] >> 2 & 1);
        break;
    case 0xc4: /* VEX, three bytes; map 1 is 0F */
        opcode = (code[1] & 0x1f) == 1 ? code[3] : 0;
        width = 16u << (code[2] >> 2 & 1);
        break;
    default:
        return 0;
    }
    return opcode == 0xe7 || opcode == 0x2b ? width : 0;
}

static void count_one(const unsigned char *code, struct stepped_counts *counts)
{
    bool wide = false;
    bool operand_prefix = false;
    counts->instructions++;
    uint64_t vector = vector_nt_bytes(code);
    counts->nt_bytes += vector;
    if (vector != 0) {
        return;
    }
    for (; *code == 0x66 || (*code & 0xf0) == 0x40; code++) {
        operand_prefix |= *code == 0x66;
        wide |= (*code & 0xf8) == 0x48;
    }
    if (code[0] != 0x0f) {
        return;
    }
    unsigned extension = code[2] >> 3 & 7;
    bool memory = code[2] >> 6 != 3;
    if (code[1] == 0xae && !memory) {
        counts->fences += !operand_prefix && (extension == 6 || extension == 7);
    } else if (code[1] == 0xae) {
        counts->flushes += extension == 7 || (extension == 6 && operand_prefix);
    } else if (code[1] == 0xe7 || code[1] == 0x2b) {
        counts->nt_bytes += 16;
    } else if (code[1] == 0xc3) {
        counts->nt_bytes += wide ? 8 : 4;
    } else if (code[1] == 0x38 && code[2] == 0xf8 && operand_prefix) {
        counts->nt_bytes += 64; /* movdir64b */
    }
}

/* From mark to mark; the child is stopped after its first one. */
static int step_between_marks(pid_t child, struct stepped_counts *counts)
{
    for (;;) {
        struct user_regs_struct registers;
        unsigned char code[CODE_BYTES];
        int status;
        if (ptrace(PTRACE_GETREGS, child, NULL, &registers) != 0 ||
            !read_code(child, registers.rip, code)) {
            return errno != 0 ? errno : EPROTO;
        }
        if (code[0] == 0xcc) {
            return 0;
        }
        count_one(code, counts);
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 ||
            waitpid(child, &status, 0) != child) {
            return errno;
        }
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
            return EPROTO;
        }
    }
}

int stepped_run(char *const argv[], char *const environment[],
                struct stepped_counts *counts)
{
    memset(counts, 0, sizeof *counts);
    pid_t child = fork();
    if (child < 0) {
        return errno;
    }
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(CHILD_NOT_TRACED);
        }
        execve(argv[0], argv, environment);
        _exit(CHILD_NO_PROGRAM);
    }
    int status;
    int error = EPROTO;
    if (waitpid(child, &status, 0) != child) {
        return errno;
    }
    if (WIFEXITED(status)) {
        return WEXITSTATUS(status) == CHILD_NOT_TRACED ? EPERM : ENOEXEC;
    }
    /* Stopped by the execve; the next stop is the first mark. */
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL);
    if (ptrace(PTRACE_CONT, child, NULL, NULL) == 0 &&
        waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
        WSTOPSIG(status) == SIGTRAP) {
        error = step_between_marks(child, counts);
    }
    if (!WIFEXITED(status)) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    return error;
}
