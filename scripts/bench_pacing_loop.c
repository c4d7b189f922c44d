/* The peer of bench_pacing.py: the barest loop that issues reads at absolute deadlines.
 *
 *     bench_pacing_loop DEVICE SCHEDULE
 *
 * SCHEDULE holds pairs of native 64-bit words, due time in nanoseconds since the start and byte
 * offset. Each read is 4 KiB, O_DIRECT, by io_uring through its system calls alone. It sleeps until
 * 100 us before a deadline and spins the rest. Prints one JSON object: its start on
 * CLOCK_MONOTONIC, the time its run took and the processor time of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LENGTH = 4096, BUFFERS = 1024, ENTRIES = 256 };
#define SPIN_NS 100000ull
#define AHEAD_NS 5000000ull

static void die(const char *what) {
    fprintf(stderr, "bench_pacing_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static uint64_t cpu_ns(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000ull +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000ull;
}

struct ring {
    int fd;
    unsigned *sq_tail, sq_mask, *sq_array;
    unsigned *cq_head, *cq_tail, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

static struct ring make_ring(void) {
    struct io_uring_params p;
    struct ring r;
    memset(&p, 0, sizeof p);
    r.fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (r.fd < 0) die("io_uring_setup");
    if (!(p.features & IORING_FEAT_SINGLE_MMAP)) {
        errno = ENOSYS;
        die("io_uring without a single mapping");
    }
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    char *rings = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       r.fd, IORING_OFF_SQ_RING);
    r.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQES);
    if (rings == MAP_FAILED || r.sqes == MAP_FAILED) die("mmap");
    r.sq_tail = (unsigned *)(rings + p.sq_off.tail);
    r.sq_mask = *(unsigned *)(rings + p.sq_off.ring_mask);
    r.sq_array = (unsigned *)(rings + p.sq_off.array);
    r.cq_head = (unsigned *)(rings + p.cq_off.head);
    r.cq_tail = (unsigned *)(rings + p.cq_off.tail);
    r.cq_mask = *(unsigned *)(rings + p.cq_off.ring_mask);
    r.cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
    return r;
}

static uint64_t reap(struct ring *r) {
    unsigned head = *r->cq_head, tail = __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE);
    uint64_t count = tail - head;
    for (; head != tail; head++) {
        int result = r->cqes[head & r->cq_mask].res;
        if (result != LENGTH) {
            errno = result < 0 ? -result : EIO;
            die("a read failed");
        }
    }
    __atomic_store_n(r->cq_head, head, __ATOMIC_RELEASE);
    return count;
}

static void submit(struct ring *r, int fd, void *buffer, uint64_t offset) {
    unsigned tail = *r->sq_tail, slot = tail & r->sq_mask;
    struct io_uring_sqe *sqe = &r->sqes[slot];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = fd;
    sqe->addr = (uintptr_t)buffer;
    sqe->len = LENGTH;
    sqe->off = offset;
    r->sq_array[slot] = slot;
    __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0) != 1) die("io_uring_enter");
}

static void wait_until(uint64_t due) {
    if (due > now_ns() + SPIN_NS) {
        uint64_t wake = due - SPIN_NS;
        struct timespec t = {(time_t)(wake / 1000000000ull), (long)(wake % 1000000000ull)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
        }
    }
    while (now_ns() < due) {
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: bench_pacing_loop DEVICE SCHEDULE\n");
        return 2;
    }
    int device = open(argv[1], O_RDONLY | O_DIRECT);
    if (device < 0) die(argv[1]);
    int schedule = open(argv[2], O_RDONLY);
    struct stat found;
    if (schedule < 0 || fstat(schedule, &found) != 0) die(argv[2]);
    size_t count = (size_t)found.st_size / 16;
    const uint64_t *words =
        mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, schedule, 0);
    if (words == MAP_FAILED) die(argv[2]);
    char *buffers = aligned_alloc(LENGTH, (size_t)BUFFERS * LENGTH);
    if (!buffers) die("memory");
    memset(buffers, 1, (size_t)BUFFERS * LENGTH);
    struct ring ring = make_ring();
    uint64_t done = 0, before = cpu_ns(), start = now_ns() + AHEAD_NS;
    for (size_t i = 0; i < count; i++) {
        wait_until(start + words[2 * i]);
        submit(&ring, device, buffers + (i % BUFFERS) * LENGTH, words[2 * i + 1]);
        done += reap(&ring);
    }
    while (done < count) {
        if (syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 &&
            errno != EINTR)
            die("io_uring_enter");
        done += reap(&ring);
    }
    printf("{\"start_monotonic_ns\": %llu, \"wall_ns\": %llu, \"cpu_ns\": %llu}\n",
           (unsigned long long)start, (unsigned long long)(now_ns() - start),
           (unsigned long long)(cpu_ns() - before));
    return 0;
}
