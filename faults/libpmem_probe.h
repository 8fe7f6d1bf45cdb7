/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpmem_probe.h - the interface of libpmem-probe.so, which is preloaded into a
 * process to observe what it asks of libpmem.
 *
 * A program finds the function with dlsym(RTLD_DEFAULT, NVC_LIBPMEM_OBSERVE);
 * that it is not there means that the probe is not preloaded.
 */
#ifndef NVC_LIBPMEM_PROBE_H
#define NVC_LIBPMEM_PROBE_H

#include "adapter.h"

#define NVC_LIBPMEM_OBSERVE "nvc_libpmem_observe"

/*
 * From now on fn(context, ...) is called at each event of every thread; NULL ends
 * that.  Call it while no other thread is in libpmem: a thread inside a libpmem
 * function may still report to the observer that was there when it entered.
 */
void nvc_libpmem_observe(nvc_event_fn *fn, void *context);

#endif
