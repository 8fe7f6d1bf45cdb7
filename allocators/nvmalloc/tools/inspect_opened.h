/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect_opened.h - what an open of the heap would find, tried on a private copy.
 *
 * A child process maps the file copy-on-write, attaches to it, which recovers it in the
 * child's own memory, rebuilds and checks it.  The file stays as it is; should the
 * library die of what is in it, that is told, too.
 */
#ifndef NVM_INSPECT_OPENED_H
#define NVM_INSPECT_OPENED_H

#include <json-c/json.h>

/* {"live_blocks","live_bytes","used_bytes","replayed","quarantined_bytes","check"}, or
   {"error"}. */
struct json_object *inspect_opened(const char *path);

#endif
