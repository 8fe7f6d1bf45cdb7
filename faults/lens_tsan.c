// SPDX-License-Identifier: Apache-2.0
/*
 * lens_tsan.c - the entry points that -fsanitize=thread makes the compiler call.
 *
 * Their names and signatures are those of the sanitizer's interface (compiler-rt's
 * tsan_interface.h and tsan_interface_atomic.h document them; gcc and clang emit calls to
 * the same).  Plain accesses are announced before they happen; atomic ones we carry out
 * ourselves.  Everything is done sequentially consistent: the schedule runs one thread
 * at a time anyway, and x86 has no weaker read-modify-write.
 *
 * A read-modify-write is a locked instruction, a store with seq_cst order an xchg or a
 * store and an mfence: both complete the thread's flushes (rule 5).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lens.h"

#define HERE   ((uintptr_t)__builtin_return_address(0))
#define EXPORT __attribute__((visibility("default")))

/* The order as the interface passes it. */
enum { order_seq_cst = 5 };

#define PLAIN(size)                                                                      \
    EXPORT void __tsan_read##size(void *address);                                        \
    EXPORT void __tsan_read##size(void *address)                                         \
    {                                                                                    \
        nvl_lens_load_small(address, size, HERE);                                        \
    }                                                                                    \
    EXPORT void __tsan_write##size(void *address);                                       \
    EXPORT void __tsan_write##size(void *address)                                        \
    {                                                                                    \
        nvl_lens_store_small(address, size, HERE);                                       \
    }                                                                                    \
    EXPORT void __tsan_read_write##size(void *address);                                  \
    EXPORT void __tsan_read_write##size(void *address)                                   \
    {                                                                                    \
        nvl_lens_load_small(address, size, HERE);                                        \
        nvl_lens_store_small(address, size, HERE);                                       \
    }                                                                                    \
    EXPORT void __tsan_volatile_read##size(void *address);                               \
    EXPORT void __tsan_volatile_read##size(void *address)                                \
    {                                                                                    \
        nvl_lens_load_small(address, size, HERE);                                        \
    }                                                                                    \
    EXPORT void __tsan_volatile_write##size(void *address);                              \
    EXPORT void __tsan_volatile_write##size(void *address)                               \
    {                                                                                    \
        nvl_lens_store_small(address, size, HERE);                                       \
    }

#define UNALIGNED(size)                                                                  \
    EXPORT void __tsan_unaligned_read##size(void *address);                              \
    EXPORT void __tsan_unaligned_read##size(void *address)                               \
    {                                                                                    \
        nvl_lens_load_small(address, size, HERE);                                        \
    }                                                                                    \
    EXPORT void __tsan_unaligned_write##size(void *address);                             \
    EXPORT void __tsan_unaligned_write##size(void *address)                              \
    {                                                                                    \
        nvl_lens_store_small(address, size, HERE);                                       \
    }                                                                                    \
    EXPORT void __tsan_unaligned_read_write##size(void *address);                        \
    EXPORT void __tsan_unaligned_read_write##size(void *address)                         \
    {                                                                                    \
        nvl_lens_load_small(address, size, HERE);                                        \
        nvl_lens_store_small(address, size, HERE);                                       \
    }

PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)

EXPORT void __tsan_init(void);
/* Called by a constructor of each instrumented object. */
EXPORT void __tsan_init(void)
{
    nvl_lens.modules++;
}

EXPORT void __tsan_read_range(void *address, size_t length);
EXPORT void __tsan_read_range(void *address, size_t length)
{
    nvl_lens_load(address, length, HERE);
}

EXPORT void __tsan_write_range(void *address, size_t length);
EXPORT void __tsan_write_range(void *address, size_t length)
{
    nvl_lens_store(address, length, HERE);
}

EXPORT void __tsan_vptr_update(void **address, void *value);
EXPORT void __tsan_vptr_update(void **address, void *value)
{
    (void)value;
    nvl_lens_store(address, sizeof *address, HERE);
}

EXPORT void __tsan_vptr_read(void **address);
EXPORT void __tsan_vptr_read(void **address)
{
    nvl_lens_load(address, sizeof *address, HERE);
}

EXPORT void __tsan_func_entry(void *caller);
/* Calls are not needed (lens.h), but a compiler may not know how to leave them out. */
EXPORT void __tsan_func_entry(void *caller)
{
    (void)caller;
}

EXPORT void __tsan_func_exit(void);
EXPORT void __tsan_func_exit(void)
{
}

/* ---- atomics ---- */

typedef uint8_t a8;
typedef uint16_t a16;
typedef uint32_t a32;
typedef uint64_t a64;

#define FETCH(bits, name, builtin)                                                       \
    EXPORT a##bits __tsan_atomic##bits##_fetch_##name(volatile a##bits *address,         \
                                                      a##bits value, int order);         \
    EXPORT a##bits __tsan_atomic##bits##_fetch_##name(volatile a##bits *address,         \
                                                      a##bits value, int order)          \
    {                                                                                    \
        (void)order;                                                                     \
        nvl_lens_load_small((const void *)(uintptr_t)address, bits / 8, HERE);           \
        nvl_lens_store_small((const void *)(uintptr_t)address, bits / 8, HERE);          \
        a##bits old = builtin(address, value, __ATOMIC_SEQ_CST);                         \
        nvl_lens_locked(HERE);                                                           \
        return old;                                                                      \
    }

/* Succeeds or fails, it is locked; the store is announced only if it will happen, which
   nobody can change in between: we have the turn. */
#define EXCHANGE(bits, strength)                                                         \
    EXPORT int __tsan_atomic##bits##_compare_exchange_##strength(                        \
        volatile a##bits *address, a##bits *expected, a##bits value, int order,          \
        int failure);                                                                    \
    EXPORT int __tsan_atomic##bits##_compare_exchange_##strength(                        \
        volatile a##bits *address, a##bits *expected, a##bits value, int order,          \
        int failure)                                                                     \
    {                                                                                    \
        (void)order;                                                                     \
        (void)failure;                                                                   \
        nvl_lens_load_small((const void *)(uintptr_t)address, bits / 8, HERE);           \
        if (__atomic_load_n(address, __ATOMIC_SEQ_CST) == *expected)                     \
            nvl_lens_store_small((const void *)(uintptr_t)address, bits / 8, HERE);      \
        int done = __atomic_compare_exchange_n(address, expected, value, false,          \
                                               __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);      \
        nvl_lens_locked(HERE);                                                           \
        return done;                                                                     \
    }

#define ATOMIC(bits)                                                                     \
    EXPORT a##bits __tsan_atomic##bits##_load(const volatile a##bits *address,           \
                                              int order);                                \
    EXPORT a##bits __tsan_atomic##bits##_load(const volatile a##bits *address,           \
                                              int order)                                 \
    {                                                                                    \
        (void)order;                                                                     \
        nvl_lens_load_small((const void *)(uintptr_t)address, bits / 8, HERE);           \
        return __atomic_load_n(address, __ATOMIC_SEQ_CST);                               \
    }                                                                                    \
    EXPORT void __tsan_atomic##bits##_store(volatile a##bits *address, a##bits value,    \
                                            int order);                                  \
    EXPORT void __tsan_atomic##bits##_store(volatile a##bits *address, a##bits value,    \
                                            int order)                                   \
    {                                                                                    \
        nvl_lens_store_small((const void *)(uintptr_t)address, bits / 8, HERE);          \
        __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                              \
        if (order == order_seq_cst)                                                      \
            nvl_lens_locked(HERE);                                                       \
    }                                                                                    \
    EXPORT a##bits __tsan_atomic##bits##_exchange(volatile a##bits *address,             \
                                                  a##bits value, int order);             \
    EXPORT a##bits __tsan_atomic##bits##_exchange(volatile a##bits *address,             \
                                                  a##bits value, int order)              \
    {                                                                                    \
        (void)order;                                                                     \
        nvl_lens_load_small((const void *)(uintptr_t)address, bits / 8, HERE);           \
        nvl_lens_store_small((const void *)(uintptr_t)address, bits / 8, HERE);          \
        a##bits old = __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);             \
        nvl_lens_locked(HERE);                                                           \
        return old;                                                                      \
    }                                                                                    \
    FETCH(bits, add, __atomic_fetch_add)                                                 \
    FETCH(bits, sub, __atomic_fetch_sub)                                                 \
    FETCH(bits, and, __atomic_fetch_and)                                                 \
    FETCH(bits, or, __atomic_fetch_or)                                                   \
    FETCH(bits, xor, __atomic_fetch_xor)                                                 \
    FETCH(bits, nand, __atomic_fetch_nand)                                               \
    EXCHANGE(bits, strong)                                                               \
    EXCHANGE(bits, weak)                                                                 \
    EXPORT a##bits __tsan_atomic##bits##_compare_exchange_val(                           \
        volatile a##bits *address, a##bits expected, a##bits value, int order,           \
        int failure);                                                                    \
    EXPORT a##bits __tsan_atomic##bits##_compare_exchange_val(                           \
        volatile a##bits *address, a##bits expected, a##bits value, int order,           \
        int failure)                                                                     \
    {                                                                                    \
        __tsan_atomic##bits##_compare_exchange_strong(address, &expected, value, order,  \
                                                      failure);                          \
        return expected;                                                                 \
    }

ATOMIC(8)
ATOMIC(16)
ATOMIC(32)
ATOMIC(64)

EXPORT void __tsan_atomic_thread_fence(int order);
EXPORT void __tsan_atomic_thread_fence(int order)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (order == order_seq_cst)
        nvl_lens_locked(HERE);
}

EXPORT void __tsan_atomic_signal_fence(int order);
EXPORT void __tsan_atomic_signal_fence(int order)
{
    (void)order;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
