/* bench/base/quiet.h - keep the rest of the machine out of a measurement as far as it lets us, and say how
 * much got in.
 *
 * Nothing here is needed for a correct run: where the system refuses, the figures are only noisier, and the
 * output says so.
 */
#ifndef BENCH_BASE_QUIET_H
#define BENCH_BASE_QUIET_H

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* A scheduling group of our own with the highest weight, or a real-time policy. Returns: real-time was
 * granted. */
static bool quiet_begin(bool real_time, uint64_t slack_ns)
{
        struct sched_param param = {.sched_priority = 1};
        int group;

        (void)setsid();
        group = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
        if (group >= 0) {
                if (write(group, "-20", 3) < 0)
                        fputs("autogroup: the weight stays as it is\n", stderr);
                (void)close(group);
        }
        (void)setpriority(PRIO_PROCESS, 0, -20);
        if (slack_ns)
                (void)prctl(PR_SET_TIMERSLACK, (unsigned long)slack_ns);
        return real_time && sched_setscheduler(0, SCHED_RR, &param) == 0;
}

/* CPU time that the whole machine has spent, what a hypervisor took included. 0 where it is not told. */
static uint64_t quiet_machine_ns(void)
{
        unsigned long long user = 0, nice = 0, kernel = 0, idle = 0, io = 0, irq = 0, softirq = 0, steal = 0;
        FILE *file = fopen("/proc/stat", "re");
        int read = 0;

        if (file) {
                read = fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &kernel,
                              &idle, &io, &irq, &softirq, &steal);
                (void)fclose(file);
        }
        if (read != 8)
                return 0;
        return (user + nice + kernel + irq + softirq + steal) *
               (1000000000u / (unsigned)sysconf(_SC_CLK_TCK));
}

static uint64_t quiet_own_ns(const struct rusage *usage)
{
        return ((uint64_t)usage->ru_utime.tv_sec + (uint64_t)usage->ru_stime.tv_sec) * 1000000000u +
               ((uint64_t)usage->ru_utime.tv_usec + (uint64_t)usage->ru_stime.tv_usec) * 1000u;
}

#endif
