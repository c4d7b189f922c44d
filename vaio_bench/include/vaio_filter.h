/*
 * vaio_filter.h: an I/O filter in a shared library, for vaio-bench.
 *
 * A policy names it by `use = "so:/path/filter.so"`. The library exports one symbol:
 *
 *     const vaio_filter *vaio_filter_entry(uint32_t abi_version);
 *
 * which gives a table that lives as long as the library, or NULL when it cannot serve that version.
 * The table begins with abi_version and struct_size, and so does everything else that may grow:
 * a host reads no field beyond the struct_size it finds.
 *
 * A filter is a state machine, one instance for each virtual disk (or for a group of disks). All
 * calls of one instance come from one thread, one at a time. It reads no clock, opens no file and
 * blocks in no callback: its context has the time, timers, and I/Os of its own, to the layers below
 * it or to devices of its own. So the same filter runs on the wall clock and in virtual time. One
 * that works on threads of its own wakes the host (wake_by) and takes the outcome in by poll.
 *
 * The bytes of a write must not be changed on its way down, because the layers above still need
 * them: fork a child with a buffer of its own and answer VAIO_DEFER. A read may be changed in place
 * on its way up.
 *
 * A filter that does not return from a callback, or lets go of none of the I/Os that it holds, for
 * the time that the policy gives it (`hang`, 30 s) has hung: its round ends.
 */
#ifndef VAIO_FILTER_H
#define VAIO_FILTER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VAIO_ABI_VERSION 1u
#define VAIO_ENTRY_SYMBOL "vaio_filter_entry"
/* No I/O: the parent of a background I/O, or what child() gives when there is no room. */
#define VAIO_NO_IO UINT32_MAX

/* vaio_io.op */
enum { VAIO_READ = 0, VAIO_WRITE = 1, VAIO_FLUSH = 2, VAIO_DISCARD = 3, VAIO_WRITE_ZEROES = 4 };

/* Bits of vaio_io.flags */
enum {
    VAIO_FUA = 1,
    VAIO_SYNC = 2,
    VAIO_META = 4,
    VAIO_READAHEAD = 8,
    VAIO_PREFLUSH = 16
};

/* What to do with an I/O. On its way up VAIO_COMPLETE means the same as VAIO_PASS. */
enum {
    VAIO_PASS = 0,     /* on to the next layer */
    VAIO_COMPLETE = 1, /* answered here: the layers below never see it */
    VAIO_FAIL = 2,     /* failed here with `status`: only the layers above are told */
    VAIO_DEFER = 3     /* held: resume() or finish() it later; other I/Os keep flowing */
};

typedef struct vaio_answer {
    int32_t kind;
    int32_t status; /* a positive errno with VAIO_FAIL, else 0 */
} vaio_answer;

/* Bits of vaio_properties.flags: what the filter is. The law suite tests what follows from it. */
enum {
    VAIO_TRANSPARENT = 1,    /* a reader below sees the same bytes as one above */
    VAIO_CHANGES_LENGTH = 2, /* what it writes below is longer, shorter or elsewhere */
    VAIO_MAY_ANSWER = 4,
    VAIO_MAY_DEFER = 8,
    VAIO_REORDERS = 16,   /* writes may come below in another order than they came */
    VAIO_PERSISTS = 32,   /* keeps data over a run's end on its own devices: the disk lacks them */
    VAIO_NEEDS_DATA = 64, /* without it, data() gives nothing */
    VAIO_GROUP = 128      /* one instance for all disks of a run, not one for each */
};

typedef struct vaio_properties {
    uint32_t flags;
    uint32_t children_per_io; /* own I/Os at most at a time for one I/O passing */
    uint64_t unit_bytes;      /* read, changed and written back as a whole; 1 for none */
    uint64_t child_bytes;     /* longest own I/O; 0: no longer than the one passing plus a unit */
    uint32_t background_ios;  /* own I/Os at most at a time that no I/O waits for */
    uint32_t reserved;
} vaio_properties;

/* An I/O as it is at this moment; a copy, valid during the callback. */
typedef struct vaio_io {
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint64_t seq; /* position in the trace; the version of what a write writes */
    uint64_t tag; /* of a child: what it was forked with */
    uint32_t id;
    uint32_t parent; /* the I/O that a child was forked for, or VAIO_NO_IO */
    uint32_t flags;
    int32_t status; /* on the way up: 0, or the errno of the layers below */
    uint16_t disk;
    uint8_t op;
    uint8_t reserved[5];
} vaio_io;

/* An own I/O to be done below the filter, or on a device of its own. */
typedef struct vaio_child {
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint64_t tag;
    uint64_t share_from_bytes; /* with `share`: from this byte of its parent's range on */
    uint32_t flags;            /* VAIO_FUA and the like */
    uint8_t op;
    uint8_t share; /* 1: uses its parent's bytes; 0: has a buffer of its own */
    uint8_t reserved[2];
} vaio_child;

typedef struct vaio_context vaio_context;

/*
 * What a filter may do inside a callback. Actions take effect when the callback has returned. The
 * context belongs to the callback it was given to: never keep it.
 */
typedef struct vaio_functions {
    uint32_t abi_version;
    uint32_t struct_size;
    /* Nanoseconds since the run's origin: of the wall, or virtual. */
    uint64_t (*now)(vaio_context *);
    /* Calls `timer` with this token at that time, or as soon after as the clock allows. */
    void (*timer)(vaio_context *, uint64_t at_ns, uint64_t token);
    /* The I/O as it is now; 0, or EINVAL where there is none of that number. */
    int32_t (*io)(vaio_context *, uint32_t id, vaio_io *out);
    /* Its bytes and how many; NULL and 0 where it has none. A write's must not be changed. */
    const void *(*data)(vaio_context *, uint32_t id, size_t *size);
    /* A read's bytes on the way up, or those of a child's own buffer. */
    void *(*data_mut)(vaio_context *, uint32_t id, size_t *size);
    /* Forks an I/O of `parent`, which is deferred (or will be, by the answer). It starts at the
     * next layer and ends in `child_complete`. VAIO_NO_IO: more are open than were declared. */
    uint32_t (*child)(vaio_context *, uint32_t parent, const vaio_child *);
    /* The same for the `device`-th device of the filter's own (see `auxiliary`). */
    uint32_t (*child_on)(vaio_context *, uint32_t device, uint32_t parent, const vaio_child *);
    /* An own I/O that no I/O waits for. */
    uint32_t (*background)(vaio_context *, const vaio_child *);
    uint32_t (*background_on)(vaio_context *, uint32_t device, const vaio_child *);
    /* The same for another disk of the group (VAIO_GROUP). */
    uint32_t (*background_of)(vaio_context *, uint32_t disk, const vaio_child *);
    /* Lets an I/O deferred on its way down go on; ends one deferred either way. 0, or EINVAL when
     * the filter does not hold that I/O (which is also told in the run's events). */
    int32_t (*resume)(vaio_context *, uint32_t id);
    int32_t (*finish)(vaio_context *, uint32_t id, int32_t status);
    /* Counts blocks looked up and found in a cache, in the I/O's row. */
    void (*count_blocks)(vaio_context *, uint32_t id, uint32_t blocks, uint32_t hits);
    /* A row of the run's events: a word, and a JSON object or NULL. */
    void (*event)(vaio_context *, const char *kind, const char *detail_json);
    /* A line of text for whoever reads the run's events. */
    void (*log)(vaio_context *, const char *text);
} vaio_functions;

struct vaio_context {
    const vaio_functions *call;
    void *host;
    uint32_t disk; /* the worker's number of the disk that this callback is about */
    uint32_t reserved;
};

/* What an instance is made with. */
typedef struct vaio_setting {
    uint32_t abi_version;
    uint32_t struct_size;
    const char *disk;        /* the disk's name */
    const char *params_json; /* the filter's own keys of the policy, a JSON object */
    uint64_t seed;           /* all randomness comes from it */
    uint32_t disk_index;     /* of the run */
    uint32_t disks;          /* how many the run has */
} vaio_setting;

/* Wakes the host's worker from any thread, which then calls `poll`. */
typedef struct vaio_waker {
    void (*wake)(void *host);
    void *host;
} vaio_waker;

/* A device of the filter's own beside the disk: a cache file, a journal. */
typedef struct vaio_auxiliary {
    const char *name;
    const char *path;
    uint64_t size_bytes;
} vaio_auxiliary;

typedef struct vaio_gauge {
    const char *name; /* dirty_bytes, dirty_oldest_ns, backlog_bytes, lag_ns: in the timeline too */
    int64_t value;
} vaio_gauge;

/*
 * The filter. attach, detach and io_start are required; what else is NULL is a pass. A callback
 * that gives int32_t gives 0 or a positive errno.
 */
typedef struct vaio_filter {
    uint32_t abi_version; /* VAIO_ABI_VERSION */
    uint32_t struct_size; /* sizeof(vaio_filter) */
    const char *name;
    const char *filter_class; /* "cache", "encryption", "inspection", "replication", ... or NULL */
    const char *page;         /* Markdown, or NULL */
    vaio_properties properties;

    /* The policy is applied to a disk: checks the parameters and makes an instance. May change
     * `properties` to what follows from the parameters. On failure it writes a line of text such
     * as `key: expected a number, got "x"` to `message` and gives an errno. */
    int32_t (*attach)(const vaio_setting *, vaio_properties *properties, void **instance,
                      char *message, size_t message_size);
    /* The policy is taken off the disk: frees the instance. */
    void (*detach)(void *instance);
    /* The disk is opened; `slots` bounds every I/O number. Again after the prefill. */
    void (*open)(void *instance, uint32_t slots);
    /* Start what must reach the device (background I/Os), and what is left as those are done (in
     * child_complete): called at a run's end, and at the prefill's, before the next open. Each
     * waits until none of them is in flight. */
    void (*close)(void *instance, vaio_context *);
    vaio_answer (*io_start)(void *instance, vaio_context *, const vaio_io *);
    vaio_answer (*io_complete)(void *instance, vaio_context *, const vaio_io *);
    /* The driver gives an I/O up that this filter holds: finish() it soon, as with ECANCELED. */
    void (*io_abort)(void *instance, vaio_context *, const vaio_io *);
    /* Flushes come here in place of io_start. */
    vaio_answer (*flush)(void *instance, vaio_context *, const vaio_io *);
    /* An own I/O is done; its number is free when this returns. Where it is NULL the parent is
     * finished with the child's status, which suits filters that fork one child an I/O. */
    void (*child_complete)(void *instance, vaio_context *, const vaio_io *child);
    void (*timer)(void *instance, vaio_context *, uint64_t token);
    /* For a filter that works on threads of its own: called whenever the worker looks. */
    void (*poll)(void *instance, vaio_context *);
    void (*wake_by)(void *instance, const vaio_waker *);
    /* The `index`-th device of the filter's own: 1, or 0 where there is none. */
    int32_t (*auxiliary)(void *instance, uint32_t index, vaio_auxiliary *out);
    /* Figures of the moment; gives how many were written. */
    uint32_t (*gauges)(void *instance, vaio_gauge *out, uint32_t capacity);
    /* Bytes from whoever manages the filter. */
    int32_t (*message)(void *instance, vaio_context *, const void *data, size_t size);
    /* The virtual machine is held, and goes on. */
    int32_t (*stun)(void *instance, vaio_context *);
    int32_t (*unstun)(void *instance, vaio_context *);
    int32_t (*snapshot)(void *instance, vaio_context *, const char *name);
    int32_t (*consolidate)(void *instance, vaio_context *);
    int32_t (*clone)(void *instance, vaio_context *, const char *name);
    int32_t (*resize)(void *instance, vaio_context *, uint64_t size_bytes);
    int32_t (*migrate)(void *instance, vaio_context *, const char *destination);
    /* Changed parameters, as in vaio_setting. */
    int32_t (*configure)(void *instance, vaio_context *, const char *params_json);
} vaio_filter;

/* The symbol that the library exports. */
typedef const vaio_filter *(*vaio_entry)(uint32_t abi_version);
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const vaio_filter *vaio_filter_entry(uint32_t abi_version);

static inline vaio_answer vaio_pass(void) {
    vaio_answer answer = {VAIO_PASS, 0};
    return answer;
}

static inline vaio_answer vaio_complete(void) {
    vaio_answer answer = {VAIO_COMPLETE, 0};
    return answer;
}

static inline vaio_answer vaio_fail(int32_t status) {
    vaio_answer answer = {VAIO_FAIL, status};
    return answer;
}

static inline vaio_answer vaio_defer(void) {
    vaio_answer answer = {VAIO_DEFER, 0};
    return answer;
}

#ifdef __cplusplus
}
#endif

#endif
