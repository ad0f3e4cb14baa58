#include "base/fork.h"

#include <pthread.h>

void fork_watch(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
        pthread_atfork(prepare, parent, child);
}
