// Tells when a core was taken away: a thread of the idle class fills the core, so that its time is that of the
// watched process, ksoftirqd and this one, or stolen by the hypervisor. The scheduler charges nobody with that
// (CONFIG_PARAVIRT_TIME_ACCOUNTING), so what is missing in the sum is what was stolen.
//
//     stolen CORE PID KSOFTIRQD_PID OUT        until SIGTERM; lines: from, to, stolen (nanoseconds, CLOCK_MONOTONIC)
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile sig_atomic_t ended;

static void end(int signal) { (void)signal, ended = 1; }

static long now(clockid_t clock) {
    struct timespec time;
    return clock_gettime(clock, &time) ? 0 : time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(int count, char **words) {
    if (count != 5) return 2;
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(atoi(words[1]), &core);
    struct sched_param none = {0};
    clockid_t watched, softirq;
    FILE *out = fopen(words[4], "w");
    if (sched_setaffinity(0, sizeof core, &core) || sched_setscheduler(0, SCHED_IDLE, &none) || !out ||
        clock_getcpuclockid(atoi(words[2]), &watched) || clock_getcpuclockid(atoi(words[3]), &softirq))
        return 1;
    signal(SIGTERM, end);
    long from = now(CLOCK_MONOTONIC), last = from, used = 0;
    while (!ended) {
        long at = now(CLOCK_MONOTONIC);
        // A gap between two readings, or a while without one: what was it?
        if (at - last > 20000 || at - from > 200000) {
            long sum = now(CLOCK_PROCESS_CPUTIME_ID) + now(watched) + now(softirq);
            at = now(CLOCK_MONOTONIC);
            long stolen = used ? (at - from) - (sum - used) : 0;
            if (stolen > 20000) fprintf(out, "%ld %ld %ld\n", from, at, stolen);
            from = at, used = sum;
        }
        last = at;
    }
    return fclose(out) != 0;
}
