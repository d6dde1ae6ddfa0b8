/* What a test wraps around a real program (LD_PRELOAD) to give it a slow disk, slow forks or a clock that stands: faults.py
 * writes which into the file that TENURE_TEST_FAULTS names, and may change it at any moment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct faults {
    volatile int32_t sync_ms;
    volatile int32_t fork_ms;
    volatile int64_t clock_stands_at_s; /* 0: it runs */
};

static struct faults *faults;

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("TENURE_TEST_FAULTS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, file, 0);

    /* A test that believes in a fault that isn't there would wait for ever. */
    if (mapped == MAP_FAILED)
        abort();
    close(file);
    faults = mapped;
}

static void hold_up(int32_t ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000L};

    while (ms > 0 && nanosleep(&left, &left) != 0)
        continue;
}

int fdatasync(int file)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");

    hold_up(faults->sync_ms);
    return real(file);
}

int fsync(int file)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");

    hold_up(faults->sync_ms);
    return real(file);
}

pid_t fork(void)
{
    pid_t (*real)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "fork");
    pid_t child = real();

    if (child > 0)
        hold_up(faults->fork_ms);
    return child;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int (*real)(struct timeval *, void *) = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int done = real(now, zone);

    if (faults && faults->clock_stands_at_s)
        *now = (struct timeval){faults->clock_stands_at_s, 0};
    return done;
}
