/* pg/news.h - something asked of another thread is there: an eventfd, so that it can be waited for beside sockets.
 *
 * Who asks links his news into a list of whom he asks, under the lock of that list. When there is an answer, or anything that is
 * worth asking again for, all in the list are told and unlinked. Who no longer wants to know unlinks his news himself,
 * under the same lock.
 */
#ifndef LIDO_PG_NEWS_H
#define LIDO_PG_NEWS_H

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/list.h"

struct news {
        struct list link;  /* guarded by the lock of whom it asks */
        int fd;            /* -1: none yet */
        uint64_t since_ns; /* what is younger than this is an answer */
};

static inline void news_init(struct news *news)
{
        list_init(&news->link);
        news->fd = -1;
}

/* There is to be a descriptor to wait on, with nothing to read. Returns: 0; -1 when none is left. */
static inline int news_expect(struct news *news)
{
        uint64_t count;

        if (news->fd < 0)
                news->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        while (news->fd >= 0 && read(news->fd, &count, sizeof count) > 0)
                continue;
        return news->fd < 0 ? -1 : 0;
}

/* Tell all of the list, and unlink them. Called with the list's lock held; it does not block. */
static inline void news_tell(struct list *list)
{
        list_for_each_safe(it, list) {
                struct news *news = list_entry(it, struct news, link);

                list_unlink(it);
                if (eventfd_write(news->fd, 1) != 0)
                        continue; /* it is readable already */
        }
}

/* It is in no list any more. */
static inline void news_fini(struct news *news)
{
        if (news->fd >= 0)
                close(news->fd);
        news->fd = -1;
}

#endif
