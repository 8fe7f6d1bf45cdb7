/* SPDX-License-Identifier: Apache-2.0 */
/* What promises nothing after a crash must still tell that there was one: the library
   itself would open the heap, and wait for a mutex that a dead process holds. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../tests/contract_heap.h"

static struct contract contract;

static void a_heap_that_nobody_closed_is_refused(void **state)
{
    (void)state;
    struct contract_heap heap = contract_create(&contract);
    contract_close(&heap);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        heap = contract_open(&contract);
        contract_alloc(&heap, 0, 100);
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    struct nvc_options options = {.extra = ""};
    struct nvc_heap *opened = NULL;
    contract_expect(&contract, EUCLEAN,
                    contract.adapter->open(contract.path, &options, &opened),
                    "open of a heap whose process was killed");
    assert_non_null(strstr(contract.adapter->last_error(), "never closed"));
    unlink(contract.path);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s ADAPTER.so\n", argv[0]);
        return 2;
    }
    contract_load(&contract, argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_heap_that_nobody_closed_is_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    contract_unload(&contract);
    return failed;
}
