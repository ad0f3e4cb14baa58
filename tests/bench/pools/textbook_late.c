/* bench/pools/textbook_late.c - the textbook pool, signalling after the unlock. */
#define RIVAL_LATE 1
#include "bench/pools/textbook.c"
