// SPDX-License-Identifier: Apache-2.0
/*
 * trace_format.h - constants that the trace's writer and reader share.
 */
#ifndef NVL_TRACE_FORMAT_H
#define NVL_TRACE_FORMAT_H

#define NVL_TRACE_MAGIC "NVLTRACE"

enum {
    NVL_TRACE_PAGE = 4096, /* the initial image is stored in such pages, zero ones not */
};

#endif
