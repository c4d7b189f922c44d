/*
 * A filter that breaks in the way that is compiled in by -DBREAKS=..., at the write that is its
 * AT-th I/O. Without BREAKS it passes everything.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "vaio_filter.h"

#define NOTHING 0
#define SEGFAULT 1
#define ABORT 2
#define HANG 3
#define VERSION 4
#define SYMBOL 5
#define CALLBACK 6
#define TWICE 7
#define SCRIBBLE 8
#define LOSE 9
#define ATTACH 10
#define EXIT 11
#define EXIT_AT_ONCE 12
#define EXIT_APART 13
#define FORK 14

#ifndef BREAKS
#define BREAKS NOTHING
#endif
#ifndef AT
#define AT 20
#endif

static unsigned seen;
/* Volatile, or the compiler would see through it. */
static int *volatile nowhere = (int *)8;

static int32_t attach(const vaio_setting *setting, vaio_properties *properties, void **instance,
                      char *message, size_t message_size) {
    (void)setting, (void)properties, (void)message, (void)message_size;
    *instance = NULL;
    if (BREAKS == ATTACH) {
        raise(SIGSEGV);
    }
    return 0;
}

static void *exit_apart(void *nothing) {
    _exit(4);
    return nothing;
}

static void detach(void *instance) { (void)instance; }

static vaio_answer io_start(void *instance, vaio_context *cx, const vaio_io *io) {
    (void)instance;
    if (io->op != VAIO_WRITE || ++seen != AT) {
        return vaio_pass();
    }
    switch (BREAKS) {
    case SEGFAULT:
        *nowhere = 1;
        break;
    case ABORT:
        abort();
    case EXIT:
        exit(3);
    case EXIT_AT_ONCE:
        _exit(0);
    case EXIT_APART: {
        pthread_t thread;
        pthread_create(&thread, NULL, exit_apart, NULL);
        return vaio_defer();
    }
    case HANG:
        for (volatile int on = 1; on;) {
        }
        break;
    case TWICE:
        cx->call->resume(cx, io->id);
        cx->call->resume(cx, io->id);
        return vaio_defer();
    case SCRIBBLE: {
        size_t size = 0;
        cx->call->data_mut(cx, io->id, &size);
        cx->call->finish(cx, 123456789, 0);
        cx->call->log(cx, "tried");
        break;
    }
    case LOSE:
        return vaio_defer();
    case FORK: {
        vaio_child child = {
            .op = VAIO_WRITE,
            .offset_bytes = io->offset_bytes,
            .length_bytes = io->length_bytes,
            .share = 1,
        };
        cx->call->child(cx, io->id, &child);
        break;
    }
    default:
        break;
    }
    return vaio_pass();
}

static void child_complete(void *instance, vaio_context *cx, const vaio_io *child) {
    (void)instance, (void)cx, (void)child;
}

static const vaio_filter filter = {
    .abi_version = BREAKS == VERSION ? 77 : VAIO_ABI_VERSION,
    .struct_size = sizeof(vaio_filter),
    .name = "broken",
    .properties = {.flags = VAIO_TRANSPARENT | VAIO_MAY_DEFER,
                   .unit_bytes = 1,
                   .children_per_io = BREAKS == FORK},
    .attach = attach,
    .detach = detach,
    .child_complete = child_complete,
    .io_start = BREAKS == CALLBACK ? NULL : io_start,
};

#if BREAKS == SYMBOL
const vaio_filter *another_entry(uint32_t abi_version);
const vaio_filter *another_entry(uint32_t abi_version) {
#else
const vaio_filter *vaio_filter_entry(uint32_t abi_version) {
#endif
    (void)abi_version;
    return &filter;
}
