/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resident.h - the process's resident memory, from /proc/self.
 *
 * Resident bytes include the pages of a mapped heap file that were touched, so
 * one measure serves persistent and volatile allocators.
 */
#ifndef NVD_RESIDENT_H
#define NVD_RESIDENT_H

#include <stdbool.h>
#include <stdint.h>

/* Makes the peak start again from now; false if the kernel does not let us,
   and the peak is that of the whole process. */
bool nvd_resident_reset_peak(void);
/* Bytes resident now, and at most since the reset; false if /proc is missing. */
bool nvd_resident_read(uint64_t *now, uint64_t *peak);

#endif
