// SPDX-License-Identifier: Apache-2.0
/*
 * plants.h - the faults that can be planted in the zoo's allocator.
 *
 * A plant is a branch on PLANT(name); that line *is* the fault's place, which the
 * laboratory must name (run.py looks for it in the sources).  What each one is, and
 * which verdicts it deserves, stands in plants.yaml.  Chosen with the option
 * "plant=name"; without it the allocator is correct.
 */
#ifndef ZOO_PLANTS_H
#define ZOO_PLANTS_H

#define ZOO_PLANTS(X)                                                                    \
    X(log_flush_left_out)                                                                \
    X(log_fence_left_out)                                                                \
    X(log_flush_after_fence)                                                             \
    X(log_flush_before_store)                                                            \
    X(log_flushes_wrong_line)                                                            \
    X(log_flushes_first_line)                                                            \
    X(log_after_apply)                                                                   \
    X(torn_record_trusted)                                                               \
    X(checksum_without_last)                                                             \
    X(checksum_without_values)                                                           \
    X(generation_not_checked)                                                            \
    X(generation_repeated)                                                               \
    X(entry_not_alternated)                                                              \
    X(apply_flush_left_out)                                                              \
    X(apply_fence_left_out)                                                              \
    X(lane_forgotten)                                                                    \
    X(recovery_waits)                                                                    \
    X(recovery_floor_first)                                                              \
    X(recovery_unordered)                                                                \
    X(recovery_not_flushed)                                                              \
    X(recovery_adds)                                                                     \
    X(stale_root)                                                                        \
    X(root_torn)                                                                         \
    X(clean_too_early)                                                                   \
    X(clean_not_cleared)                                                                 \
    X(frontier_not_flushed)                                                              \
    X(alloc_publishes_first)                                                             \
    X(size_recorded_first)                                                               \
    X(free_clears_slot_first)                                                            \
    X(free_releases_first)                                                               \
    X(free_not_flushed)                                                                  \
    X(realloc_frees_first)                                                               \
    X(realloc_copy_unfenced)                                                             \
    X(realloc_copy_cut_short)                                                            \
    X(move_copies_first)                                                                 \
    X(move_clears_first)                                                                 \
    X(group_one_by_one)                                                                  \
    X(group_error_path)                                                                  \
    X(persist_last_line_missed)                                                          \
    X(persist_unfenced)                                                                  \
    X(fence_of_another_thread)

enum zoo_plant {
    zoo_none = 0,
#define ZOO_NAMED(name) zoo_##name,
    ZOO_PLANTS(ZOO_NAMED)
#undef ZOO_NAMED
};

/* Of the heap that is open; a process has one at a time. */
extern enum zoo_plant zoo_plant;

#define PLANT(name) (zoo_plant == zoo_##name)

#endif
