/* base/fork.h - be told of fork(2). Handlers are never taken off again. */
#ifndef LIDO_BASE_FORK_H
#define LIDO_BASE_FORK_H

/* `prepare` runs before a fork, `parent` and `child` after it on their side; each may be NULL. In the child only this thread
 * exists, and whatever lock another one held stays locked: prepare takes the locks that the child will need. */
void fork_watch(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
