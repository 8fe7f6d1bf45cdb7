// SPDX-License-Identifier: Apache-2.0
/* report.c: documents and errors are one line each, whatever is in them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver.h"

static int saved_stdout;

static FILE *capture(void)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    saved_stdout = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    return file;
}

static void finish(FILE *file, char *text, size_t capacity)
{
    dup2(saved_stdout, STDOUT_FILENO);
    close(saved_stdout);
    rewind(file);
    text[fread(text, 1, capacity - 1, file)] = '\0';
    fclose(file);
}

static void a_document_is_a_line(void **state)
{
    (void)state;
    char text[256];
    FILE *file = capture();
    struct json_object *document = json_object_new_object();
    json_object_object_add(document, "path", json_object_new_string("/mnt/a\nb"));
    nvd_emit(document);
    /* Read back before anything else is written: it was flushed. */
    finish(file, text, sizeof text);
    assert_string_equal(text, "{\"path\":\"/mnt/a\\nb\"}\n");
}

static void an_error_names_its_number(void **state)
{
    (void)state;
    char text[256];
    FILE *file = capture();
    nvd_emit_error("create", ENOMEM, "no room for %d \"bytes\"", 42);
    finish(file, text, sizeof text);
    assert_string_equal(text,
                        "{\"type\":\"error\",\"where\":\"create\",\"error\":\"ENOMEM\","
                        "\"errno\":12,\"message\":\"no room for 42 \\\"bytes\\\"\"}\n");
}

static void an_error_without_number(void **state)
{
    (void)state;
    char text[256];
    FILE *file = capture();
    nvd_emit_error("usage", 0, "bad");
    finish(file, text, sizeof text);
    assert_string_equal(text,
                        "{\"type\":\"error\",\"where\":\"usage\",\"message\":\"bad\"}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_is_a_line),
        cmocka_unit_test(an_error_names_its_number),
        cmocka_unit_test(an_error_without_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
