// SPDX-License-Identifier: Apache-2.0
/*
 * programs - the standalone workload `programs`: whole programs, unmodified,
 * with each malloc in turn preloaded.  docs/standalone-workloads.md is the
 * contract, workloads/programs.yaml names cases and figures.
 *
 * What is measured is one run of the program: wall clock, and what its
 * processes took of the processor and of memory.  Then the same is done without
 * a preloaded malloc, and must have the same outcome, byte by byte, where the
 * case has one (sqlite, gcc); the others judge themselves.  A different outcome
 * is exit code 4.
 *
 * Inputs are made here or lie beside the executable (programs-sources).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "driver.h"

#define SOCKET   "redis.sock" /* relative: paths of sockets are short */
#define REQUESTS "10000"      /* of one kind, at a time */
#define KINDS    9            /* as redis_benchmark() asks for */

struct options {
    const char *workload_case, *subject;
    uint64_t threads, seed;
    const char *dir, *work;
    uint64_t megabytes, files, seconds, workers, operations; /* parameters */
};

struct outcome {
    uint64_t ops;
    double seconds;
    struct rusage used; /* by the program and what it started and waited for */
};

static struct options options = {.threads = 1, .seed = 1};
static char here[PATH_MAX];    /* folder of this executable */
static char library[PATH_MAX]; /* to preload */

/* ---- what is there ---- */

static int missing(const char *what, const char *package)
{
    nvd_emit_error("missing", 0, "%s is not installed (Debian: %s)", what, package);
    return NVD_ENVIRONMENT;
}

static bool has_program(const char *name)
{
    char path[PATH_MAX];
    const char *from = getenv("PATH");
    for (from = from != NULL ? from : "/usr/bin:/bin"; *from != '\0';) {
        size_t length = strcspn(from, ":");
        snprintf(path, sizeof path, "%.*s/%s", (int)length, from, name);
        if (access(path, X_OK) == 0)
            return true;
        from += length + (from[length] == ':');
    }
    return false;
}

/* The system's programs are measured, not those of a Python virtual environment: what it
   has its interpreter import at each start is no part of CPython, and one of CPython's
   own tests fails over it. */
static void leave_virtual_environments(void)
{
    char path[PATH_MAX], kept[8192] = "";
    const char *from = getenv("PATH");
    size_t used = 0;
    while (from != NULL && *from != '\0') {
        size_t length = strcspn(from, ":");
        snprintf(path, sizeof path, "%.*s/../pyvenv.cfg", (int)length, from);
        if (access(path, F_OK) != 0 && used + length + 2 < sizeof kept)
            used += (size_t)snprintf(kept + used, sizeof kept - used, "%s%.*s",
                                     used > 0 ? ":" : "", (int)length, from);
        from += length + (from[length] == ':');
    }
    if (used > 0)
        setenv("PATH", kept, 1);
    unsetenv("VIRTUAL_ENV");
    unsetenv("PYTHONPATH");
}

/* ---- running programs ---- */

/* Starts a program with standard output and error in files of the working directory. */
static pid_t start(char *const *arguments, const char *output, bool preloaded)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    char errors[PATH_MAX], heap[PATH_MAX], report[PATH_MAX];
    snprintf(errors, sizeof errors, "%.*s.err", PATH_MAX - 10, output);
    snprintf(heap, sizeof heap, "%.*s/heap", PATH_MAX - 10, options.dir);
    snprintf(report, sizeof report, "%.*s/nvm-report", PATH_MAX - 20, options.work);
    int in = open("/dev/null", O_RDONLY);
    int out = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (in < 0 || out < 0 || err < 0)
        _exit(126);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    if (preloaded) {
        setenv("LD_PRELOAD", library, 1);
        setenv("NVM_MALLOC_HEAP", heap, 1);
        setenv("NVM_MALLOC_REPORT", report, 1);
    }
    execvp(arguments[0], arguments);
    _exit(127);
}

/* The exit code, or 128 + the signal; adds what it used. */
static int finish(pid_t child, struct outcome *outcome)
{
    struct rusage used;
    int status;
    while (wait4(child, &status, 0, &used) < 0)
        if (errno != EINTR)
            return 126;
    timeradd(&outcome->used.ru_utime, &used.ru_utime, &outcome->used.ru_utime);
    timeradd(&outcome->used.ru_stime, &used.ru_stime, &outcome->used.ru_stime);
    if (used.ru_maxrss > outcome->used.ru_maxrss)
        outcome->used.ru_maxrss = used.ru_maxrss;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Runs a program to its end; 0 or, after saying what it said, NVD_INCORRECT. */
static int run(char *const *arguments, const char *output, bool preloaded,
               struct outcome *outcome)
{
    pid_t child = start(arguments, output, preloaded);
    int code = child < 0 ? 126 : finish(child, outcome);
    if (code == 0)
        return NVD_OK;
    char name[PATH_MAX], text[300] = "";
    snprintf(name, sizeof name, "%.*s.err", PATH_MAX - 10, output);
    int fd = open(name, O_RDONLY);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    if (end > 0 && pread(fd, text, sizeof text - 1,
                         end > (off_t)sizeof text ? end - (off_t)sizeof text + 1 : 0) < 0)
        text[0] = '\0';
    if (fd >= 0)
        close(fd);
    nvd_emit_error("program", 0, "%s ended with exit code %d%s; its last words: %s",
                   arguments[0], code, preloaded ? "" : " without a preloaded malloc",
                   text);
    return NVD_INCORRECT;
}

/* Whether the dynamic linker, which else only complains, finds the library. */
static bool can_be_preloaded(void)
{
    char *arguments[] = {"true", NULL};
    struct outcome ignored = {0};
    struct stat complaints;
    return finish(start(arguments, "preload.out", true), &ignored) == 0 &&
           stat("preload.out.err", &complaints) == 0 && complaints.st_size == 0;
}

static int find_subject(void)
{
    static const struct {
        const char *name, *library, *package;
    } known[] = {
        /* Before what the program itself is linked with: Debian's redis has a jemalloc.
         */
        {"glibc", "libc.so.6", "libc6"},
        {"jemalloc", "libjemalloc.so.2", "libjemalloc2"},
        {"mimalloc", "libmimalloc.so.2.0", "libmimalloc2.0"},
    };
    if (strcmp(options.subject, "nvmalloc-preload") == 0) {
        snprintf(library, sizeof library, "%.*s/%s", PATH_MAX - 100, here,
                 "../../allocators/nvmalloc/preload/libnvmalloc-preload.so");
        if (access(library, R_OK) == 0)
            return NVD_OK;
        nvd_emit_error("missing", 0, "%s has not been built", library);
        return NVD_ENVIRONMENT;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(options.subject, known[i].name) != 0)
            continue;
        snprintf(library, sizeof library, "%s", known[i].library);
        return can_be_preloaded() ? NVD_OK : missing(library, known[i].package);
    }
    nvd_emit_error("arguments", 0, "--subject: there is no '%s'", options.subject);
    return NVD_USAGE;
}

static int same_files(const char *one, const char *other)
{
    char a[65536], b[65536];
    FILE *first = fopen(one, "r"), *second = fopen(other, "r");
    bool same = first != NULL && second != NULL;
    while (same) {
        size_t got = fread(a, 1, sizeof a, first);
        same = fread(b, 1, sizeof b, second) == got && memcmp(a, b, got) == 0;
        if (got == 0)
            break;
    }
    if (first != NULL)
        fclose(first);
    if (second != NULL)
        fclose(second);
    if (same)
        return NVD_OK;
    nvd_emit_error("outcome", 0, "%s differs from %s, which was made without %s", one,
                   other, options.subject);
    return NVD_INCORRECT;
}

/* ---- python: CPython's own tests ---- */

static int run_python(struct outcome *outcome)
{
    char *there[] = {"python3", "-c", "import test.test_json, test.test_threading", NULL};
    char *arguments[] = {"python3",
                         "-m",
                         "unittest",
                         "test.test_json",
                         "test.test_dict",
                         "test.test_threading",
                         NULL};
    struct outcome ignored = {0};
    char line[300];
    unsigned long tests = 0;
    if (!has_program("python3"))
        return missing("python3", "python3");
    if (finish(start(there, "python.there", false), &ignored) != 0)
        return missing("CPython's tests", "libpython3.11-testsuite");
    uint64_t began = nvd_monotonic_ns();
    int code = run(arguments, "python.out", true, outcome);
    outcome->seconds = (double)(nvd_monotonic_ns() - began) * 1e-9;
    FILE *said = fopen("python.out.err", "r");
    while (said != NULL && fgets(line, sizeof line, said) != NULL)
        if (strncmp(line, "Ran ", 4) == 0)
            tests = strtoul(line + 4, NULL, 10);
    if (said != NULL)
        fclose(said);
    outcome->ops = tests;
    if (code == NVD_OK && tests == 0) {
        nvd_emit_error("program", 0, "python3 -m unittest ran no test");
        code = NVD_INCORRECT;
    }
    return code;
}

/* ---- sqlite: builds and queries a database ---- */

static bool write_sql(uint64_t rows)
{
    FILE *file = fopen("build.sql", "w");
    if (file == NULL)
        return false;
    fprintf(
        file,
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;\n"
        "PRAGMA cache_size = -200000;\n"
        "CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT, weight INTEGER,\n"
        "  text TEXT);\n"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %llu)\n"
        "  INSERT INTO part SELECT i, 'part-' || (i * 7919 %% 100003), i * 31 %% 1009,\n"
        "    printf('%%.*c', 400 + i %% 300, char(97 + i %% 26)) FROM n;\n"
        "CREATE INDEX by_name ON part (name, weight);\n"
        "SELECT count(*), sum(weight), sum(length(text)) FROM part;\n"
        "SELECT weight, count(*), min(name), max(name) FROM part\n"
        "  GROUP BY weight ORDER BY 2, 1;\n"
        "SELECT a.name, b.id FROM part a JOIN part b ON a.name = b.name AND a.id < b.id\n"
        "  ORDER BY a.name, b.id LIMIT 5000;\n"
        "SELECT id, length(text) FROM part ORDER BY text DESC, id LIMIT 3000;\n"
        "PRAGMA integrity_check;\n",
        (unsigned long long)rows);
    return fclose(file) == 0;
}

static int run_sqlite(struct outcome *outcome)
{
    char *arguments[] = {"sqlite3", "one.db", ".read build.sql", NULL};
    char *reference[] = {"sqlite3", "other.db", ".read build.sql", NULL};
    struct outcome ignored = {0};
    struct stat status;
    if (!has_program("sqlite3"))
        return missing("sqlite3", "sqlite3");
    outcome->ops = options.megabytes * 1600; /* rows of some 650 bytes with their index */
    if (!write_sql(outcome->ops)) {
        nvd_emit_error("work", errno, "cannot write build.sql");
        return NVD_ENVIRONMENT;
    }
    uint64_t began = nvd_monotonic_ns();
    int code = run(arguments, "sqlite.out", true, outcome);
    outcome->seconds = (double)(nvd_monotonic_ns() - began) * 1e-9;
    if (code == NVD_OK && strcmp(options.subject, "glibc") != 0) {
        code = run(reference, "sqlite.expected", false, &ignored);
        if (code == NVD_OK)
            code = same_files("sqlite.out", "sqlite.expected");
        if (code == NVD_OK)
            code = same_files("one.db", "other.db");
    }
    if (code == NVD_OK && (stat("one.db", &status) != 0 ||
                           (uint64_t)status.st_size < options.megabytes * 1000000)) {
        nvd_emit_error("outcome", 0, "the database has not %llu MB",
                       (unsigned long long)options.megabytes);
        code = NVD_INCORRECT;
    }
    unlink("one.db");
    unlink("other.db");
    return code;
}

/* ---- gcc: compiles nvmalloc ---- */

static int compile(char *source, char *object, bool preloaded, struct outcome *outcome)
{
    char include[PATH_MAX];
    snprintf(include, sizeof include, "-I%.*s/programs-sources", PATH_MAX - 100, here);
    char *arguments[] = {"gcc", "-D_GNU_SOURCE", "-std=c11", "-O2",  "-g", include,
                         "-c",  source,          "-o",       object, NULL};
    return run(arguments, "gcc.out", preloaded, outcome);
}

static int run_gcc(struct outcome *outcome)
{
    char pattern[PATH_MAX];
    glob_t sources;
    struct outcome ignored = {0};
    if (!has_program("gcc"))
        return missing("gcc", "gcc");
    snprintf(pattern, sizeof pattern, "%.*s/programs-sources/*.c", PATH_MAX - 100, here);
    if (glob(pattern, 0, NULL, &sources) != 0) {
        nvd_emit_error("missing", 0, "there is nothing to compile: %s", pattern);
        return NVD_ENVIRONMENT;
    }
    int code = NVD_OK;
    for (size_t i = 0; i < sources.gl_pathc && i < options.files && code == NVD_OK; i++) {
        uint64_t began = nvd_monotonic_ns();
        code = compile(sources.gl_pathv[i], "one.o", true, outcome);
        outcome->seconds += (double)(nvd_monotonic_ns() - began) * 1e-9;
        outcome->ops++;
        if (code == NVD_OK && strcmp(options.subject, "glibc") != 0) {
            code = compile(sources.gl_pathv[i], "other.o", false, &ignored);
            if (code == NVD_OK)
                code = same_files("one.o", "other.o");
        }
    }
    globfree(&sources);
    return code;
}

/* ---- redis: its server under its benchmark ---- */

static bool wait_for_server(pid_t server)
{
    char *ping[] = {"redis-cli", "-s", SOCKET, "PING", NULL};
    struct outcome ignored = {0};
    for (int i = 0; i < 300; i++) {
        if (finish(start(ping, "redis.ping", false), &ignored) == 0)
            return true;
        if (waitpid(server, NULL, WNOHANG) != 0)
            return false;
        usleep(100000);
    }
    return false;
}

static int redis_benchmark(struct outcome *outcome)
{
    char *arguments[] = {"redis-benchmark",
                         "-s",
                         SOCKET,
                         "-q",
                         "-n",
                         REQUESTS,
                         "-c",
                         "20",
                         "-r",
                         "20000",
                         "-d",
                         "200",
                         "-t",
                         "set,get,incr,lpush,lpop,sadd,hset,zadd,mset",
                         NULL};
    struct outcome ignored = {0};
    uint64_t began = nvd_monotonic_ns();
    int code = NVD_OK;
    while (code == NVD_OK && outcome->seconds < (double)options.seconds) {
        code = run(arguments, "redis.bench", false, &ignored);
        outcome->seconds = (double)(nvd_monotonic_ns() - began) * 1e-9;
        outcome->ops += KINDS * strtoull(REQUESTS, NULL, 10);
    }
    return code;
}

static int run_redis(struct outcome *outcome)
{
    char *server[] = {"redis-server", "--port", "0", "--unixsocket",
                      SOCKET,         "--save", "",  NULL};
    char *shutdown[] = {"redis-cli", "-s", SOCKET, "SHUTDOWN", "NOSAVE", NULL};
    struct outcome ignored = {0};
    if (!has_program("redis-server"))
        return missing("redis-server", "redis-server");
    if (!has_program("redis-benchmark") || !has_program("redis-cli"))
        return missing("redis-benchmark", "redis-tools");
    pid_t child = start(server, "redis.log", true);
    if (!wait_for_server(child)) {
        kill(child, SIGKILL);
        nvd_emit_error("program", 0, "redis-server does not answer");
        return NVD_INCORRECT;
    }
    int code = redis_benchmark(outcome);
    if (code == NVD_OK)
        code = run(shutdown, "redis.shutdown", false, &ignored);
    if (code != NVD_OK)
        kill(child, SIGKILL);
    int ended = finish(child, outcome);
    if (code == NVD_OK && ended != 0) {
        nvd_emit_error("program", 0, "redis-server ended with exit code %d", ended);
        code = NVD_INCORRECT;
    }
    return code;
}

/* ---- stress: threads that give each other blocks ---- */

static int run_stress(struct outcome *outcome)
{
    char program[PATH_MAX], workers[24], operations[24], seed[24];
    snprintf(program, sizeof program, "%.*s/programs-stress", PATH_MAX - 100, here);
    snprintf(workers, sizeof workers, "%llu", (unsigned long long)options.workers);
    snprintf(operations, sizeof operations, "%llu",
             (unsigned long long)options.operations);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)options.seed);
    char *arguments[] = {program, workers, operations, seed, NULL};
    uint64_t began = nvd_monotonic_ns();
    int code = run(arguments, "stress.out", true, outcome);
    outcome->seconds = (double)(nvd_monotonic_ns() - began) * 1e-9;
    outcome->ops = options.workers * options.operations;
    return code;
}

/* ---- the protocol ---- */

/* Largest peak of a process, in the reports of the preloaded library; < 0: there is none.
 */
static double peak_nvm_bytes(void)
{
    char line[2000];
    double largest = -1;
    FILE *file = fopen("nvm-report", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        struct json_object *report = json_tokener_parse(line), *peak;
        if (json_object_object_get_ex(report, "peak_bytes", &peak) &&
            json_object_get_double(peak) > largest)
            largest = json_object_get_double(peak);
        json_object_put(report);
    }
    if (file != NULL)
        fclose(file);
    return largest;
}

static void add(struct json_object *object, const char *key, double value)
{
    json_object_object_add(object, key, json_object_new_double(value));
}

static void report(const struct outcome *outcome)
{
    struct json_object *document = json_object_new_object();
    struct json_object *figures = json_object_new_object();
    const struct rusage *used = &outcome->used;
    double nvm = peak_nvm_bytes();
    json_object_object_add(document, "type", json_object_new_string("result"));
    json_object_object_add(document, "workload", json_object_new_string("programs"));
    json_object_object_add(document, "case",
                           json_object_new_string(options.workload_case));
    json_object_object_add(document, "subject", json_object_new_string(options.subject));
    json_object_object_add(document, "threads",
                           json_object_new_int64((int64_t)options.threads));
    add(document, "seconds", outcome->seconds);
    json_object_object_add(document, "ops", json_object_new_uint64(outcome->ops));
    add(document, "ops_per_s", (double)outcome->ops / outcome->seconds);
    add(figures, "cpu_s",
        (double)(used->ru_utime.tv_sec + used->ru_stime.tv_sec) +
            1e-6 * (double)(used->ru_utime.tv_usec + used->ru_stime.tv_usec));
    add(figures, "peak_rss_mib", (double)used->ru_maxrss / 1024);
    if (nvm >= 0) {
        add(figures, "peak_nvm_mib", nvm / (1 << 20));
        json_object_object_add(document, "peak_bytes",
                               json_object_new_uint64((uint64_t)nvm));
    }
    json_object_object_add(document, "figures", figures);
    nvd_emit(document);
}

static bool parse_parameter(const char *text)
{
    static const struct {
        const char *name;
        uint64_t *value;
    } known[] = {
        {"megabytes", &options.megabytes},   {"files", &options.files},
        {"seconds", &options.seconds},       {"workers", &options.workers},
        {"operations", &options.operations},
    };
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals != NULL && i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].name) == (size_t)(equals - text) &&
            strncmp(text, known[i].name, (size_t)(equals - text)) == 0)
            return nvd_parse_u64(equals + 1, 1, 1000000000, known[i].value);
    return false;
}

static bool parse_option(int letter)
{
    double ignored;
    switch (letter) {
    case 'c':
        options.workload_case = optarg;
        return true;
    case 's':
        options.subject = optarg;
        return true;
    case 't':
        return nvd_parse_u64(optarg, 1, 1024, &options.threads);
    case 'r':
        return nvd_parse_u64(optarg, 0, UINT64_MAX, &options.seed);
    case 'i': /* windows: a program takes as long as it takes, where the suite put us */
        return nvd_parse_seconds(optarg, &ignored);
    case 'p':
        return true;
    case 'd':
        options.dir = optarg;
        return true;
    case 'k':
        options.work = optarg;
        return true;
    case 'm':
        return parse_parameter(optarg);
    default:
        return false;
    }
}

static bool parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"case", required_argument, NULL, 'c'},
        {"subject", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 'r'},
        {"cpus", required_argument, NULL, 'p'},
        {"warmup", required_argument, NULL, 'i'},
        {"seconds", required_argument, NULL, 'i'},
        {"timeout", required_argument, NULL, 'i'},
        {"dir", required_argument, NULL, 'd'},
        {"work", required_argument, NULL, 'k'},
        {"param", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    int letter, index = 0;
    while ((letter = getopt_long(argc, argv, "", known, &index)) != -1) {
        if (letter == '?' || !parse_option(letter)) {
            nvd_emit_error("arguments", 0, "--%s: found '%s', which it can't be",
                           letter == '?' ? "?" : known[index].name,
                           optarg != NULL ? optarg : "");
            return false;
        }
    }
    bool whole = optind == argc && options.workload_case != NULL &&
                 options.subject != NULL && options.dir != NULL && options.work != NULL;
    if (!whole)
        nvd_emit_error("arguments", 0,
                       "expected bench --case C --subject S --dir DIR --work DIR");
    return whole;
}

/* Cases are called by the program, with a suffix that tells a size: sqlite-100m. */
static int run_case(struct outcome *outcome)
{
    static const struct {
        const char *name;
        int (*run)(struct outcome *outcome);
        const uint64_t *needs[2];
    } known[] = {
        {"python", run_python, {NULL}},
        {"sqlite", run_sqlite, {&options.megabytes}},
        {"gcc", run_gcc, {&options.files}},
        {"redis", run_redis, {&options.seconds}},
        {"stress", run_stress, {&options.workers, &options.operations}},
    };
    size_t length = strcspn(options.workload_case, "-");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i].name) != length ||
            strncmp(known[i].name, options.workload_case, length) != 0)
            continue;
        for (int need = 0; need < 2; need++)
            if (known[i].needs[need] != NULL && *known[i].needs[need] == 0) {
                nvd_emit_error("arguments", 0, "a --param of the case %s is not there",
                               options.workload_case);
                return NVD_USAGE;
            }
        return known[i].run(outcome);
    }
    nvd_emit_error("arguments", 0, "--case: there is no '%s'", options.workload_case);
    return NVD_USAGE;
}

int main(int argc, char **argv)
{
    struct outcome outcome = {0};
    char self[PATH_MAX] = "";
    leave_virtual_environments();
    if (argc < 2 || strcmp(argv[1], "bench") != 0) {
        nvd_emit_error("arguments", 0, "expected the command 'bench'");
        return NVD_USAGE;
    }
    if (!parse(argc - 1, argv + 1))
        return NVD_USAGE;
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0 || options.work == NULL ||
        chdir(options.work) != 0) {
        nvd_emit_error("work", errno, "cannot go to the folder of --work");
        return NVD_ENVIRONMENT;
    }
    snprintf(here, sizeof here, "%s", dirname(self));
    int code = find_subject();
    if (code == NVD_OK)
        code = run_case(&outcome);
    if (code == NVD_OK)
        report(&outcome);
    return code;
}
