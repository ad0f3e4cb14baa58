#include "buffer/asym.h"

#include <pthread.h>

#if defined(__linux__) && !defined(LIDO_SIM) && !defined(LIDO_NO_MEMBARRIER)

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool works;

static void enlist(void)
{
        works = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

bool fence_is_asymmetric(void)
{
        pthread_once(&once, enlist);
        return works;
}

void fence_heavy(void)
{
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

#else

bool fence_is_asymmetric(void)
{
#ifdef LIDO_SIM
        return true;
#else
        return false;
#endif
}

void fence_heavy(void)
{
}

#endif
