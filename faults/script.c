// SPDX-License-Identifier: Apache-2.0
/*
 * script.c - operations: text, what is possible, what is drawn.
 */
#include "script.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void nvl_script_add(struct nvl_script *script, const struct nvl_op *op)
{
    if (script->count == script->capacity) {
        script->capacity = 2 * script->capacity + 64;
        script->ops = realloc(script->ops, script->capacity * sizeof *script->ops);
        if (script->ops == NULL)
            abort();
    }
    script->ops[script->count++] = *op;
}

void nvl_script_clear(struct nvl_script *script)
{
    free(script->ops);
    *script = (struct nvl_script){0};
}

/* ---- text ---- */

struct parser {
    const char *at;
    uint32_t slots, inner;
    bool bad;
};

static uint64_t number(struct parser *parser)
{
    char *end;
    if (*parser->at < '0' || *parser->at > '9') {
        parser->bad = true;
        return 0;
    }
    uint64_t value = strtoull(parser->at, &end, 10);
    parser->at = end;
    return value;
}

static bool literal(struct parser *parser, char character)
{
    if (*parser->at != character)
        return false;
    parser->at++;
    return true;
}

static uint32_t slot(struct parser *parser)
{
    uint64_t outer = number(parser);
    if (outer >= parser->slots)
        parser->bad = true;
    if (!literal(parser, '.'))
        return (uint32_t)outer;
    uint64_t j = number(parser);
    if (j >= parser->inner)
        parser->bad = true;
    return (uint32_t)(parser->slots + outer * parser->inner + j);
}

static void size_of(struct parser *parser, struct nvl_op *op, unsigned i)
{
    if (!literal(parser, ':'))
        parser->bad = true;
    op->size[i] = number(parser);
    if (op->size[i] == 0)
        parser->bad = true;
}

static void operation(struct parser *parser, struct nvl_op *op)
{
    char kind = *parser->at++;
    op->count = 1;
    switch (kind) {
    case 'c':
    case 'a':
        op->kind = NVL_ALLOC;
        op->container = kind == 'c';
        op->id[0] = slot(parser);
        size_of(parser, op, 0);
        break;
    case 'f':
        op->kind = NVL_FREE;
        op->id[0] = slot(parser);
        break;
    case 'r':
        op->kind = NVL_REALLOC;
        op->id[0] = slot(parser);
        size_of(parser, op, 0);
        break;
    case 'm':
        op->kind = NVL_MOVE;
        op->count = 2;
        op->id[0] = slot(parser);
        if (!literal(parser, '>'))
            parser->bad = true;
        op->id[1] = slot(parser);
        break;
    case 'g':
        op->kind = NVL_GROUP;
        for (op->count = 0; op->count < NVL_GROUP_MAX && !parser->bad;) {
            op->id[op->count] = slot(parser);
            size_of(parser, op, op->count++);
            if (!literal(parser, ','))
                break;
        }
        break;
    case 'o':
        op->kind = NVL_REOPEN;
        op->count = 0;
        break;
    default:
        parser->bad = true;
        break;
    }
}

bool nvl_script_parse(struct nvl_script *script, const char *text, uint32_t slots,
                      uint32_t inner, char *error, size_t error_size)
{
    struct parser parser = {text, slots, inner, false};
    while (*parser.at != '\0') {
        if (literal(&parser, ' ') || literal(&parser, '\n'))
            continue;
        const char *began = parser.at;
        struct nvl_op op = {0};
        if (literal(&parser, 't')) {
            uint64_t thread = number(&parser);
            if (thread >= NVL_THREADS_MAX || !literal(&parser, '/'))
                parser.bad = true;
            op.thread = (uint8_t)thread;
        }
        if (!parser.bad)
            operation(&parser, &op);
        if (parser.bad ||
            (*parser.at != ' ' && *parser.at != '\n' && *parser.at != '\0')) {
            snprintf(error, error_size,
                     "found '%.16s', expected an operation such as a3:64, c3:200, f3, "
                     "r3:99, m3>5, g1:64,2:80 or o, of slots below %u",
                     began, slots);
            return false;
        }
        nvl_script_add(script, &op);
    }
    return true;
}

struct printer {
    char *text;
    size_t size, used;
};

static void print(struct printer *printer, const char *format, uint64_t value)
{
    if (printer->used >= printer->size)
        return;
    int length = snprintf(printer->text + printer->used, printer->size - printer->used,
                          format, value);
    printer->used += length > 0 ? (size_t)length : 0;
}

static void print_slot(struct printer *printer, uint32_t id, uint32_t slots,
                       uint32_t inner)
{
    if (id < slots) {
        print(printer, "%" PRIu64, id);
        return;
    }
    print(printer, "%" PRIu64, (id - slots) / inner);
    print(printer, ".%" PRIu64, (id - slots) % inner);
}

static void print_op(struct printer *printer, const struct nvl_op *op, uint32_t slots,
                     uint32_t inner)
{
    static const char letters[NVL_OP_KINDS] = {'a', 'f', 'r', 'm', 'g', 'o'};
    if (printer->used > 0)
        print(printer, " ", 0);
    if (op->thread != 0)
        print(printer, "t%" PRIu64 "/", op->thread);
    print(printer, op->container ? "c" : (char[]){letters[op->kind], '\0'}, 0);
    for (unsigned i = 0; i < op->count; i++) {
        if (i > 0)
            print(printer, op->kind == NVL_MOVE ? ">" : ",", 0);
        print_slot(printer, op->id[i], slots, inner);
        if (op->kind == NVL_ALLOC || op->kind == NVL_REALLOC || op->kind == NVL_GROUP)
            print(printer, ":%" PRIu64, op->size[i]);
    }
}

bool nvl_script_print(const struct nvl_script *script, uint32_t slots, uint32_t inner,
                      char *text, size_t size)
{
    struct printer printer = {text, size, 0};
    text[0] = '\0';
    for (size_t i = 0; i < script->count; i++)
        print_op(&printer, &script->ops[i], slots, inner);
    return printer.used < size;
}

/* ---- what is possible ---- */

static bool exists(const struct nvl_ledger *ledger, uint32_t id, const bool *busy)
{
    uint32_t outer = nvl_ledger_outer(ledger, id);
    return !busy[outer] &&
           (!nvl_ledger_is_inner(ledger, id) || ledger->slot[outer].container);
}

static bool empty(const struct nvl_ledger *ledger, uint32_t id, const bool *busy)
{
    return exists(ledger, id, busy) && !ledger->slot[id].full;
}

static bool movable(const struct nvl_ledger *ledger, uint32_t id, const bool *busy)
{
    return exists(ledger, id, busy) && ledger->slot[id].full &&
           !ledger->slot[id].container;
}

static bool group_possible(const struct nvl_ledger *ledger, const struct nvl_op *op,
                           const bool *busy)
{
    for (unsigned i = 0; i < op->count; i++) {
        if (!empty(ledger, op->id[i], busy))
            return false;
        for (unsigned j = 0; j < i; j++) {
            if (op->id[i] == op->id[j])
                return false;
        }
    }
    return op->count > 0;
}

bool nvl_op_possible(const struct nvl_ledger *ledger, const struct nvl_op *op,
                     const struct nvc_adapter *adapter, const bool *busy)
{
    switch ((enum nvl_op_kind)op->kind) {
    case NVL_ALLOC:
        return empty(ledger, op->id[0], busy) &&
               !(op->container && nvl_ledger_is_inner(ledger, op->id[0]));
    case NVL_FREE:
        return exists(ledger, op->id[0], busy) && ledger->slot[op->id[0]].full &&
               !nvl_ledger_occupied(ledger, op->id[0]);
    case NVL_REALLOC:
        return adapter->realloc_to != NULL && movable(ledger, op->id[0], busy);
    case NVL_MOVE:
        return adapter->move_to != NULL && movable(ledger, op->id[0], busy) &&
               empty(ledger, op->id[1], busy);
    case NVL_GROUP:
        return adapter->alloc_group != NULL && group_possible(ledger, op, busy);
    case NVL_REOPEN:
        return true;
    default:
        return false;
    }
}

/* ---- drawing ---- */

/* Mostly small and often equal, so that freed blocks are reused; seldom up to a quarter
   of the heap. */
static uint64_t draw_size(const struct nvl_ledger *ledger, struct nvd_random *random)
{
    static const uint32_t palette[] = {16, 64, 100, 256, 4096};
    uint64_t draw = nvd_random_below(random, 32);
    if (draw < 16)
        return palette[nvd_random_below(random, sizeof palette / sizeof palette[0])];
    if (draw < 26)
        return 16 + nvd_random_below(random, 500);
    if (draw < 30)
        return 16 + nvd_random_below(random, 16384);
    if (draw < 31)
        return 16 + nvd_random_below(random, 1 << 18);
    return 16 + nvd_random_below(random, ledger->heap_size / 4);
}

static uint32_t draw_slot(const struct nvl_ledger *ledger, struct nvd_random *random)
{
    uint32_t outer = (uint32_t)nvd_random_below(random, ledger->slots);
    if (ledger->inner == 0 || !ledger->slot[outer].container ||
        nvd_random_below(random, 4) == 0)
        return outer;
    return nvl_ledger_inner(ledger, outer,
                            (uint32_t)nvd_random_below(random, ledger->inner));
}

static void draw_alloc(const struct nvl_ledger *ledger, struct nvd_random *random,
                       struct nvl_op *op)
{
    op->kind = NVL_ALLOC;
    op->size[0] = draw_size(ledger, random);
    uint64_t least = (uint64_t)ledger->inner * ledger->slot_size;
    op->container = least > 0 && op->size[0] >= least && op->id[0] < ledger->slots &&
                    nvd_random_below(random, 6) == 0;
}

static void draw_group(const struct nvl_ledger *ledger, struct nvd_random *random,
                       struct nvl_op *op)
{
    op->kind = NVL_GROUP;
    op->count = (uint8_t)(2 + nvd_random_below(random, 3));
    for (unsigned i = 0; i < op->count; i++) {
        op->id[i] = draw_slot(ledger, random);
        op->size[i] = 16 + nvd_random_below(random, 300);
    }
}

static void draw_on_full(const struct nvl_ledger *ledger, struct nvd_random *random,
                         struct nvl_op *op)
{
    uint64_t draw = nvd_random_below(random, 8);
    op->kind = draw == 0 ? NVL_REALLOC : draw == 1 ? NVL_MOVE : NVL_FREE;
    if (op->kind == NVL_REALLOC)
        op->size[0] = draw_size(ledger, random);
    if (op->kind == NVL_MOVE) {
        op->count = 2;
        op->id[1] = draw_slot(ledger, random);
    }
}

bool nvl_op_draw(const struct nvl_ledger *ledger, struct nvd_random *random,
                 const struct nvc_adapter *adapter, const bool *busy, uint32_t thread,
                 bool alone, struct nvl_op *op)
{
    for (int tries = 0; tries < 64; tries++) {
        *op = (struct nvl_op){.thread = (uint8_t)thread, .count = 1};
        op->id[0] = draw_slot(ledger, random);
        if (alone && nvd_random_below(random, 40) == 0) {
            op->kind = NVL_REOPEN;
            op->count = 0;
        } else if (ledger->slot[op->id[0]].full) {
            draw_on_full(ledger, random, op);
        } else if (nvd_random_below(random, 10) == 0) {
            draw_group(ledger, random, op);
        } else {
            draw_alloc(ledger, random, op);
        }
        if (nvl_op_possible(ledger, op, adapter, busy))
            return true;
    }
    return false;
}
