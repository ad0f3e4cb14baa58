/* bench/pools/sem_ck_stack.c - Concurrency Kit's stack behind a semaphore: the strongest simple pool that can
 * wait. */
#define RIVAL_SEMAPHORE 1
#include "bench/pools/ck_stack.c"
