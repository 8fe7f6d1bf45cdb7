// SPDX-License-Identifier: Apache-2.0
/* fault_options.c: each command takes its own options, needs some, and says no
   to the rest; and the verify command line that is written can be read back. */
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "driver.h"
#include "fault_options.h"
#include "supervise.h"

static struct nvd_fault_options options;

/* Parses up to a NULL; what nvd_fault_options_parse() returns. */
static int parse(unsigned takes, const char *const argv[])
{
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    optind = 0; /* glibc: begin anew */
    opterr = 0;
    return nvd_fault_options_parse(&options, takes, argc, (char **)argv);
}

#define PARSE(takes, ...)                                                                \
    parse(takes, (const char *const[]){"command", __VA_ARGS__, NULL})

static void defaults_and_values(void **state)
{
    (void)state;
    assert_int_equal(PARSE(NVD_TAKES_FILL, "--adapter", "a.so", "--heap", "h"), -1);
    assert_string_equal(options.adapter, "a.so");
    assert_string_equal(options.extra, "");
    assert_int_equal(options.heap_size, 32 << 20);
    assert_int_equal(PARSE(NVD_TAKES_CHURN, "--adapter", "a", "--heap", "h", "--journal",
                           "j", "--heap-size", "8M", "--threads", "3", "--kill-at-event",
                           "17", "--from-open", "--ending", "abandon"),
                     -1);
    assert_int_equal(options.heap_size, 8 << 20);
    assert_int_equal(options.threads, 3);
    assert_int_equal(options.kill_at_event, 17);
    assert_true(options.from_open);
    assert_string_equal(options.ending, "abandon");
}

static void what_is_required_is_asked_for(void **state)
{
    (void)state;
    assert_int_equal(PARSE(NVD_TAKES_FILL, "--heap", "h"), NVD_USAGE);
    assert_int_equal(PARSE(NVD_TAKES_FILL, "--adapter", "a"), NVD_USAGE);
    assert_int_equal(PARSE(NVD_TAKES_VERIFY, "--adapter", "a", "--heap", "h"), NVD_USAGE);
    assert_int_equal(PARSE(NVD_TAKES_HISTORY, "--adapter", "a", "--dir", "d"), NVD_USAGE);
    assert_int_equal(
        PARSE(NVD_TAKES_HISTORY, "--adapter", "a", "--dir", "d", "--work", "w"), -1);
}

static void what_is_not_taken_or_not_valid_is_refused(void **state)
{
    (void)state;
    static const char *const refused[][2] = {
        {"--ops", "5"},         {"--threads", "0"},        {"--threads", "65"},
        {"--slots", "0"},       {"--heap-size", "0"},      {"--heap-size", "8X"},
        {"--timeout", "0"},     {"--timeout", "-1"},       {"--fill-tolerance", "1"},
        {"--generations", "0"}, {"--no-such-option", "1"}, {"--cpus", "0-"},
        {"--journal", "j"},     {"--cpus", "99999"},       {"more", "arguments"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        assert_int_equal(PARSE(NVD_TAKES_HISTORY, "--adapter", "a", "--dir", "d",
                               "--work", "w", refused[i][0], refused[i][1]),
                         NVD_USAGE);
    assert_int_equal(PARSE(NVD_TAKES_CHURN, "--adapter", "a", "--heap", "h", "--journal",
                           "j", "--ending", "bang"),
                     NVD_USAGE);
}

static void a_written_command_line_reads_back_the_same(void **state)
{
    (void)state;
    const struct nvd_fault_options wanted = {.adapter = "a b.so",
                                             .extra = "mode=log",
                                             .heap = "h",
                                             .journal = "j",
                                             .seed = UINT64_MAX,
                                             .timeout = 0.1,
                                             .final = true,
                                             .fill_baseline = 12345678901,
                                             .fill_tolerance = 0.05};
    struct nvd_command_line line;
    nvd_verify_command_line(&line, &wanted, true);
    assert_string_equal(line.argv[0], "verify");
    assert_int_equal(parse(NVD_TAKES_VERIFY, line.argv), -1);
    assert_string_equal(options.adapter, wanted.adapter);
    assert_string_equal(options.extra, wanted.extra);
    assert_string_equal(options.heap, wanted.heap);
    assert_string_equal(options.journal, wanted.journal);
    assert_true(options.seed == wanted.seed);
    assert_true(options.timeout == wanted.timeout);
    assert_true(options.final);
    assert_true(options.fill_baseline == wanted.fill_baseline);
    assert_true(options.fill_tolerance == wanted.fill_tolerance);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_values),
        cmocka_unit_test(what_is_required_is_asked_for),
        cmocka_unit_test(what_is_not_taken_or_not_valid_is_refused),
        cmocka_unit_test(a_written_command_line_reads_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
