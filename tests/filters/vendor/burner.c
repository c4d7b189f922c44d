/*
 * A filter that has a thread of its own use CPU for every write: one that it starts when it is
 * attached and that outlives the run, or with -DENDS a new one each time, which ends.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "vaio_filter.h"

#ifndef BURN_NS
#define BURN_NS 5000000
#endif

static int64_t used_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void burn(void) {
    for (int64_t until = used_ns() + BURN_NS; used_ns() < until;) {
    }
}

#ifdef ENDS
static void *burn_once(void *nothing) {
    burn();
    return nothing;
}

static void start(void) {}

static void burn_elsewhere(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, burn_once, NULL) == 0) {
        pthread_join(thread, NULL);
    }
}
#else
static sem_t asked, done;

static void *burn_when_asked(void *nothing) {
    for (;;) {
        sem_wait(&asked);
        burn();
        sem_post(&done);
    }
    return nothing;
}

static void start(void) {
    /* A process that is forked has its parent's memory, and none of its threads. */
    static pid_t started_in;
    pthread_t thread;
    if (started_in != getpid() && sem_init(&asked, 0, 0) == 0 && sem_init(&done, 0, 0) == 0) {
        started_in = getpid();
        pthread_create(&thread, NULL, burn_when_asked, NULL);
    }
}

static void burn_elsewhere(void) {
    sem_post(&asked);
    sem_wait(&done);
}
#endif

static int32_t attach(const vaio_setting *setting, vaio_properties *properties, void **instance,
                      char *message, size_t message_size) {
    (void)setting, (void)properties, (void)message, (void)message_size;
    *instance = NULL;
    start();
    return 0;
}

static void detach(void *instance) { (void)instance; }

static vaio_answer io_start(void *instance, vaio_context *cx, const vaio_io *io) {
    (void)instance, (void)cx;
    if (io->op == VAIO_WRITE) {
        burn_elsewhere();
    }
    return vaio_pass();
}

static const vaio_filter filter = {
    .abi_version = VAIO_ABI_VERSION,
    .struct_size = sizeof(vaio_filter),
    .name = "burner",
    .properties = {.flags = VAIO_TRANSPARENT, .unit_bytes = 1},
    .attach = attach,
    .detach = detach,
    .io_start = io_start,
};

const vaio_filter *vaio_filter_entry(uint32_t abi_version) {
    (void)abi_version;
    return &filter;
}
