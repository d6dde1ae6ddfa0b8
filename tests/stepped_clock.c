/* Preloaded into a server (LD_PRELOAD): its wall clock is off by as many microseconds as the file named by STEPPED_CLOCK
 * says, read at every look, so that a test can step the clock of a running process. Monotonic clocks are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_us;

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset_us = mapped;
    close(file);
}

static int64_t offset(void) { return offset_us ? *offset_us : 0; }

static void step(time_t *seconds, long *part, long parts_per_second) {
    int64_t us = offset(), parts = *part + us % 1000000 * (parts_per_second / 1000000);
    *seconds += us / 1000000;
    while (parts < 0) parts += parts_per_second, --*seconds;
    while (parts >= parts_per_second) parts -= parts_per_second, ++*seconds;
    *part = (long)parts;
}

int clock_gettime(clockid_t id, struct timespec *ts) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, ts);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) step(&ts->tv_sec, &ts->tv_nsec, 1000000000L);
    return result;
}

int gettimeofday(struct timeval *tv, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(tv, zone);
    if (result == 0 && tv) step(&tv->tv_sec, &tv->tv_usec, 1000000L);
    return result;
}

time_t time(time_t *out) {
    struct timeval tv;
    gettimeofday(&tv, NULL);
    if (out) *out = tv.tv_sec;
    return tv.tv_sec;
}
