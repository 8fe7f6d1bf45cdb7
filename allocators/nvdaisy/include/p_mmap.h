/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p_mmap.h - the Daisy heap: data in non-volatile memory, found again by number.
 *
 *     p_init(64 * 1024);
 *     int *number = p_malloc(sizeof *number);
 *     *number = 1;
 *     p_persist(number, sizeof *number);
 *     p_bind(1, number, sizeof *number);
 *
 * and in another process, a power cut later: p_init(64 * 1024); number = p_get_malloc(1).
 *
 * The heap is one file: what the environment variable P_HEAP names, else
 * "daisy-UID.heap" in the first of /mnt/pmem0, /mnt/pmem1, /dev/shm that this user may
 * write to.  A process has one such heap open, and a heap is open in one process.
 *
 * Ids
 * ---
 * An id is a number from 1 to P_MAX_ID.  It names one block or none, in time that does
 * not depend on how many there are, and a block has one id or none.  It does not matter
 * which call gave the id: p_bind, p_new, p_malloc_id and p_get_small_region fill the one
 * table that p_get, p_get_bind_node, p_get_malloc and p_mmap look in.
 *
 * What survives
 * -------------
 * Each call that changes the heap is durable and atomic when it returns: a crash in the
 * middle of it leaves it done or not begun.  What the *program* stores into a block is
 * the program's to make durable: p_persist().
 *
 * A block with an id survives.  So does a block without one that is reached from a block
 * that survives: by its offset from p_get_base(), stored as 32 or 64 bits at a multiple
 * of
 * 4.  An address stored in the heap reaches nothing: the heap may lie elsewhere next
 * time. Every other block belongs to the process that allocated it and goes with it: the
 * next p_init() frees it, whether that process was killed between p_malloc() and p_bind()
 * or just ended.  So no crash leaks memory, and nothing that was bound is lost.
 *
 * Threads may call everything at once but p_init, p_clear and p_close, which need the
 * heap to themselves, and two calls on one block or one id of which one frees it.
 *
 * Errors: functions that return int give 0, or -1; those that return an address, or NULL.
 * errno says why, and p_error() in a sentence.  Every function but p_init fails with
 * EINVAL before p_init.
 */
#ifndef P_MMAP_H
#define P_MMAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#ifdef __cplusplus
extern "C" {
#endif

#define P_API __attribute__((visibility("default")))

#define P_MAX_ID 1000000

/* --- the heap --- */

/*
 * Opens the heap, or makes one with room for `size` bytes of blocks (each takes 16 bytes
 * more than was asked for, and is rounded up as nvmalloc's size classes are); the file is
 * larger than that.  EINVAL: size < 1; EALREADY: this process has it open; EBUSY: another
 * one has; ENOSPC: no room in the file system; EFBIG: the heap is there, and was made for
 * fewer bytes than this; EMEDIUMTYPE: the file is none of ours; EUCLEAN: it is damaged.
 */
P_API int p_init(int64_t size);

/*
 * Frees every block and forgets every id.  Once it has begun it is certain: after a crash
 * in the middle of it the next p_init() completes it.
 */
P_API int p_clear(void);

/* Where the heap begins in this process: what offsets count from. */
P_API void *p_get_base(void);

/*
 * Closes the heap; p_init() may open it again.  A process may as well just end: the next
 * p_init() then takes a little longer.  (Not in the original interface.)
 */
P_API int p_close(void);

/* Returns when [address, address + size) is durable. (Not in the original interface.) */
P_API int p_persist(const void *address, int64_t size);

/* One sentence on the calling thread's last failure; "" before the first. */
P_API const char *p_error(void);

/* --- blocks without an id, which may get one --- */

/*
 * A block of `size` bytes, aligned to 16, its content undefined.  EINVAL: size < 1;
 * ENOMEM: no free space of the heap is large enough.
 */
P_API void *p_malloc(int64_t size);

/* Frees a block, and its id if it has one.  EINVAL: not the address of a block. */
P_API int p_free(void *address);

/*
 * Makes `id` name the block, which had no id, and `size` the number that goes with it. If
 * the id named another block, that one has no id any more: it is not freed under its
 * user's feet, but ends with this process as every block without an id.  For a block that
 * bears this very id, only the number changes.
 * EINVAL: not the address of a block, or size is not 0 .. what the block holds, or no
 * such id; EEXIST: the block has another id.
 */
P_API int p_bind(int id, void *address, int64_t size);

/*
 * The block that an id names; *size (unless size is NULL) becomes the number that was
 * given with it.  ENOENT.  An `int *` is taken as well, as the original did; EOVERFLOW if
 * the number does not fit.
 */
P_API void *p_get_bind_node(int id, int64_t *size);
P_API void *p_get_bind_node_int(int id, int *size);
#ifndef __cplusplus
#define p_get_bind_node(id, size)                                                        \
    _Generic((size), int * : p_get_bind_node_int, default : p_get_bind_node)((id), (size))
#endif

/* --- blocks made with their id --- */

/* A block of `size` bytes, all 0, under an id.  EEXIST: the id names a block; EINVAL:
   size < 1 or no such id; ENOMEM. */
P_API void *p_new(int id, int64_t size);
/* Frees the block of an id.  ENOENT. */
P_API int p_delete(int id);
/* The block of an id.  ENOENT; EINVAL: it has fewer than `size` bytes. */
P_API void *p_get(int id, int64_t size);

/* The same in the words of the later form: as p_new() but with undefined content; as
   p_delete(); as p_get() of any size. */
P_API void *p_malloc_id(int id, int64_t size);
P_API int p_free_id(int id);
P_API void *p_get_malloc(int id);

/* Sees to it that an id names a block of at least `size` bytes: makes it, all 0, if the
   id names none.  EINVAL: it names a smaller one; ENOMEM. */
P_API int p_get_small_region(int id, int64_t size);
/* The block of an id, of at least `length` bytes, as p_get().  It lies in the heap, so
   `address` is not heeded, and `protection` must be PROT_READ | PROT_WRITE (ENOTSUP). */
P_API void *p_mmap(void *address, size_t length, int protection, int id);

#ifdef __cplusplus
}
#endif
#endif
