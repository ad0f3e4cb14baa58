#include "support/patience.h"

#include <time.h>

uint64_t real_now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void give_way(void)
{
        struct timespec moment = { 0, 50000 };

        nanosleep(&moment, NULL);
}
