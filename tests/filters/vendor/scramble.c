/*
 * scramble: an example of a filter in a shared library. It keeps on the disk the guest's bytes
 * XORed with a stream that depends on a key and on the place, as encryption would (and protects
 * nothing).
 *
 *     cc -shared -fPIC -O2 -I "$(vaio-bench abi --include-dir)" scramble.c -o scramble.so
 *
 *     [[filter]]
 *     use = "so:scramble.so"
 *     key = 42
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vaio_filter.h"

struct scramble {
    uint64_t key;
    int64_t scrambled_bytes;
};

/* splitmix64 (Steele, Lea, Flood 2014) of the place of eight bytes. */
static uint64_t stream(uint64_t key, uint64_t place) {
    uint64_t z = key + place * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* `offset` is of the first byte; every byte has its own place in the stream, aligned or not. */
static void scramble(const struct scramble *self, const uint8_t *from, uint8_t *to, size_t bytes,
                     uint64_t offset) {
    for (size_t i = 0; i < bytes; i++) {
        uint64_t at = offset + i;
        to[i] = from[i] ^ (uint8_t)(stream(self->key, at / 8) >> (at % 8 * 8));
    }
}

static int32_t attach(const vaio_setting *setting, vaio_properties *properties, void **instance,
                      char *message, size_t message_size) {
    (void)properties;
    const char *key = strstr(setting->params_json, "\"key\"");
    unsigned long long value = 0;
    if (key == NULL || sscanf(key, "\"key\" : %llu", &value) != 1) {
        snprintf(message, message_size, "key: expected a number such as 42");
        return EINVAL;
    }
    struct scramble *self = calloc(1, sizeof *self);
    if (self == NULL) {
        return ENOMEM;
    }
    self->key = value;
    *instance = self;
    return 0;
}

static void detach(void *instance) { free(instance); }

static vaio_answer io_start(void *instance, vaio_context *cx, const vaio_io *io) {
    struct scramble *self = instance;
    if (io->op != VAIO_WRITE && io->op != VAIO_WRITE_ZEROES) {
        return vaio_pass();
    }
    /* The guest's bytes stay as they are; a zero has its own image below, so it is written. */
    vaio_child child = {0};
    child.op = VAIO_WRITE;
    child.offset_bytes = io->offset_bytes;
    child.length_bytes = io->length_bytes;
    child.flags = io->flags & VAIO_FUA;
    uint32_t id = cx->call->child(cx, io->id, &child);
    size_t size = 0;
    uint8_t *to = id == VAIO_NO_IO ? NULL : cx->call->data_mut(cx, id, &size);
    if (to == NULL) {
        return vaio_fail(ENOMEM);
    }
    if (io->op == VAIO_WRITE) {
        scramble(self, cx->call->data(cx, io->id, NULL), to, size, io->offset_bytes);
    } else {
        memset(to, 0, size);
        scramble(self, to, to, size, io->offset_bytes);
    }
    self->scrambled_bytes += (int64_t)size;
    return vaio_defer();
}

static void child_complete(void *instance, vaio_context *cx, const vaio_io *child) {
    (void)instance;
    cx->call->finish(cx, child->parent, child->status);
}

static vaio_answer io_complete(void *instance, vaio_context *cx, const vaio_io *io) {
    if (io->op == VAIO_READ && io->status == 0) {
        size_t size = 0;
        uint8_t *bytes = cx->call->data_mut(cx, io->id, &size);
        if (bytes != NULL) {
            scramble(instance, bytes, bytes, size, io->offset_bytes);
        }
    }
    return vaio_pass();
}

static uint32_t gauges(void *instance, vaio_gauge *out, uint32_t capacity) {
    if (capacity == 0) {
        return 0;
    }
    out[0].name = "scrambled_bytes";
    out[0].value = ((struct scramble *)instance)->scrambled_bytes;
    return 1;
}

static int32_t snapshot(void *instance, vaio_context *cx, const char *name) {
    (void)instance;
    (void)name;
    cx->call->event(cx, "snapshot_seen", "{}");
    return 0;
}

static const vaio_filter filter = {
    .abi_version = VAIO_ABI_VERSION,
    .struct_size = sizeof(vaio_filter),
    .name = "scramble",
    .filter_class = "encryption",
    .page = "# scramble\n\nXORs what is stored with a stream that depends on a key.\n",
    .properties =
        {
            .flags = VAIO_MAY_DEFER | VAIO_NEEDS_DATA,
            .children_per_io = 1,
            .unit_bytes = 1,
        },
    .attach = attach,
    .detach = detach,
    .io_start = io_start,
    .io_complete = io_complete,
    .child_complete = child_complete,
    .gauges = gauges,
    .snapshot = snapshot,
};

const vaio_filter *vaio_filter_entry(uint32_t abi_version) {
    return abi_version == VAIO_ABI_VERSION ? &filter : NULL;
}
