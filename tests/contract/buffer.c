/* Pools of buffers of one size, put through the suite in contract.c. A pointer that has been lent again cannot be told from its
 * earlier loan, buffers do not die, and they have no lifetime: those claims are passed over. */
#include "contract/contract.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "support/patience.h"

enum { BYTES = 20480 }; /* large enough for each to come from the source alone, and to go back alone */

struct kind {
        uint32_t flags;
        struct lido_service *service;
        struct lido_buffer_pool *pool;
        struct lido_buffer_source source;
        _Atomic uint32_t mapped; /* what the source has given and not got back */
};

static void *map(size_t bytes, size_t alignment, void *context)
{
        struct kind *kind = context;

        atomic_fetch_add(&kind->mapped, 1);
        return lido_buffer_source_mmap.map(bytes, alignment, lido_buffer_source_mmap.context);
}

static void unmap(void *memory, size_t bytes, void *context)
{
        struct kind *kind = context;

        lido_buffer_source_mmap.unmap(memory, bytes, lido_buffer_source_mmap.context);
        atomic_fetch_sub(&kind->mapped, 1);
}

static struct lido_pool *open_kind(struct contract *contract, struct lido_pool_options *wished)
{
        struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;
        struct kind *kind = contract->data;

        must(lido_service_start(&kind->service, NULL) == LIDO_OK);
        kind->source = (struct lido_buffer_source)LIDO_BUFFER_SOURCE_INIT;
        kind->source.map = map;
        kind->source.unmap = unmap;
        kind->source.context = kind;
        options.buffer_bytes = BYTES;
        options.max_bytes = (size_t)wished->max * BYTES;
        options.decay_ms = wished->idle_timeout_ms ? wished->idle_timeout_ms : LIDO_NEVER;
        options.flags = kind->flags;
        options.service = kind->service;
        options.source = &kind->source;
        must(lido_buffer_pool_open(&kind->pool, &options) == LIDO_OK);
        return NULL;
}

static void end_kind(struct contract *contract)
{
        struct kind *kind = contract->data;

        must(lido_service_stop(kind->service, 0) == LIDO_OK);
        must(atomic_load(&kind->mapped) == 0);
}

static uint32_t alive(struct contract *contract)
{
        struct kind *kind = contract->data;

        return atomic_load(&kind->mapped);
}

static void soil(void *object)
{
        memset(object, 's', BYTES);
}

static bool is_clean(void *object)
{
        const char *bytes = object;

        for (size_t i = 0; i < BYTES; i++)
                if (bytes[i] != 0)
                        return false;
        return true;
}

/* ---- the engine --------------------------------------------------------------------------------------------------------------- */

static int acquire(struct contract *contract, int64_t timeout_ms, struct lent *ret_lent)
{
        struct kind *kind = contract->data;

        return lido_buffer_timed_acquire(kind->pool, BYTES, timeout_ms, &ret_lent->object);
}

static int release(struct contract *contract, struct lent *lent)
{
        (void)contract;
        return lido_buffer_release(lent->object);
}

/* Every byte is written and read again; a second user would show. */
static void use(struct contract *contract, struct lent *lent)
{
        static _Atomic uint32_t uses;
        uint32_t mine = atomic_fetch_add(&uses, 1), *words = lent->object;

        (void)contract;
        must(lido_buffer_bytes(lent->object) == BYTES);
        for (size_t i = 0; i < BYTES / sizeof *words; i++)
                words[i] = mine;
        for (size_t i = 0; i < BYTES / sizeof *words; i++)
                must(words[i] == mine);
}

static void note(struct lido_buffer_request *request, int status, void *buffer)
{
        struct contract_asked *asked = request->data;

        asked->calls++;
        asked->status = status;
        asked->lent.object = buffer;
}

_Static_assert(sizeof(struct lido_buffer_request) <= sizeof((struct contract_asked *)0)->own, "a request has room");

static int ask(struct contract *contract, struct lido_loop *loop, int64_t timeout_ms, struct contract_asked *asked)
{
        struct lido_buffer_request *request = (struct lido_buffer_request *)(void *)asked->own;
        struct kind *kind = contract->data;

        request->data = asked;
        request->loop = loop;
        request->timeout_ms = timeout_ms;
        return lido_buffer_acquire_async(kind->pool, request, BYTES, note);
}

static struct contract_counts counts(struct contract *contract)
{
        struct lido_buffer_stats stats = LIDO_BUFFER_STATS_INIT;
        struct kind *kind = contract->data;

        must(lido_buffer_pool_stats(kind->pool, &stats) == LIDO_OK);
        return (struct contract_counts){ .live = stats.mapped_bytes / BYTES, .opened = stats.grown, .acquired = stats.acquired,
                                         .misused = stats.misused, .ended_idle = stats.returned, .ended_old = CONTRACT_UNKNOWN };
}

static int close_kind(struct contract *contract)
{
        return lido_buffer_pool_close(((struct kind *)contract->data)->pool);
}

static int drain(struct contract *contract, int64_t timeout_ms)
{
        return lido_buffer_pool_drain(((struct kind *)contract->data)->pool, timeout_ms);
}

static void free_kind(struct contract *contract)
{
        lido_buffer_pool_free(((struct kind *)contract->data)->pool);
}

static const struct contract_engine engine = {
        .acquire = acquire, .release = release, .use = use, .ask = ask, .counts = counts, .close = close_kind, .drain = drain,
        .free = free_kind, .is_outlived = true,
};

#define KIND(title, of_flags)                                                                                  \
        {                                                                                                      \
                .name = title, .most = 64, .data = &(struct kind){ .flags = of_flags }, .engine = &engine,     \
                .open = open_kind, .end = end_kind, .alive = alive                                             \
        }

static struct contract plain = KIND("plain", LIDO_BUFFER_NO_TOOLS);
static struct contract checked = KIND("checked", LIDO_BUFFER_POISON | LIDO_BUFFER_LEAKS);
static struct contract wiped = { .name = "wiped", .most = 64, .data = &(struct kind){ .flags = LIDO_BUFFER_ZERO_ON_RELEASE },
                                 .engine = &engine, .open = open_kind, .end = end_kind, .soil = soil, .is_clean = is_clean,
                                 .alive = alive };

int main(void)
{
        return contract_run("contract/buffer", (struct contract *const[]){ &plain, &checked, &wiped, NULL });
}
