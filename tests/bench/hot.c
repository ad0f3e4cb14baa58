/* bench/hot.c - the hot paths, one at a time and often, for an instruction counter to watch.
 *
 *      hot                     lists the paths
 *      hot PATH COUNT          walks one path COUNT times inside the function hot_PATH
 *
 * budget.sh runs it under callgrind, which counts what happens between that function's first instruction and
 * its last: the same number on every machine with the same compiler, however busy. The first walks settle
 * hints and marks; among many they do not show. Exit 77 means that this build cannot be judged: it is not
 * optimised, or instrumented, or checks itself.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <lido.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANDLES 8

/* A loop of its own for each path, so that nothing but the path and its caller's share is in it. */
typedef void hot_loop(struct lido_pool *pool, lido_lease *leases, long count);

struct path {
        const char *name;
        hot_loop *loop;
        int is_exhausted; /* with every handle lent */
};

static int objects[HANDLES], opened;

static void open_object(lido_op op, void *context)
{
        (void)context;
        (void)lido_op_opened(op, &objects[opened++]);
}

static void close_object(lido_op op, void *object, void *context)
{
        (void)object, (void)context;
        (void)lido_op_done(op, LIDO_OK);
}

static void must(int is_so, const char *what)
{
        if (is_so)
                return;
        (void)fprintf(stderr, "hot: %s\n", what);
        exit(1);
}

#define HOT __attribute__((noinline)) static void

HOT hot_acquire_and_release(struct lido_pool *pool, lido_lease *leases, long count)
{
        lido_lease lease;

        (void)leases;
        while (count-- > 0)
                if (lido_acquire(pool, LIDO_NEVER, &lease) != LIDO_OK || lido_release(lease) != LIDO_OK)
                        abort();
}

HOT hot_try_and_release(struct lido_pool *pool, lido_lease *leases, long count)
{
        lido_lease lease;

        (void)leases;
        while (count-- > 0)
                if (lido_try_acquire(pool, &lease) != LIDO_OK || lido_release(lease) != LIDO_OK)
                        abort();
}

HOT hot_try_in_vain(struct lido_pool *pool, lido_lease *leases, long count)
{
        while (count-- > 0)
                if (lido_try_acquire(pool, leases) != LIDO_EEXHAUSTED)
                        abort();
}

HOT hot_object(struct lido_pool *pool, lido_lease *leases, long count)
{
        (void)pool;
        while (count-- > 0)
                if (!lido_object(leases[0]))
                        abort();
}

static const struct path paths[] = {
        {"acquire_and_release", hot_acquire_and_release, 0},
        {"try_and_release", hot_try_and_release, 0},
        {"try_in_vain", hot_try_in_vain, 1},
        {"object", hot_object, 1},
};

#define PATHS (sizeof paths / sizeof paths[0])

/* What makes counts of this build say nothing about the build that people install; NULL: nothing. */
static const char *unfit(void)
{
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
        return "the build has a sanitizer in it";
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(LIDO_SANITIZE)
        return "the build has a sanitizer in it";
#elif !defined(__OPTIMIZE__)
        return "the build is not optimised";
#elif defined(LIDO_DEBUG)
        return "the build checks itself (--enable-assert)";
#elif !defined(__x86_64__)
        return "the budget is for x86-64";
#else
        return NULL;
#endif
}

static void walk_often(const struct path *path, long count)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_service *service;
        struct lido_pool *pool;
        lido_lease leases[HANDLES];
        int lent = path->is_exhausted ? HANDLES : 0;

        factory.open = open_object;
        factory.close = close_object;
        options.max = options.min = HANDLES;
        options.start = LIDO_START_FAIL_FAST;
        must(lido_service_start(&service, NULL) == LIDO_OK, "the service does not start");
        must(lido_pool_open(&pool, service, &factory, &options) == LIDO_OK, "the pool does not open");
        for (int i = 0; i < lent; i++)
                must(lido_acquire(pool, LIDO_NEVER, &leases[i]) == LIDO_OK, "a handle is missing");
        path->loop(pool, leases, count);

        for (int i = 0; i < lent; i++)
                must(lido_release(leases[i]) == LIDO_OK, "a release is refused");
        lido_pool_free(pool);
        must(lido_service_stop(service, 10000) == LIDO_OK, "the service does not stop");
}

int main(int count, char **arguments)
{
        const char *reason = unfit();

        if (reason) {
                (void)puts(reason);
                return 77;
        }
        for (size_t i = 0; i < PATHS; i++) {
                if (count == 1)
                        (void)puts(paths[i].name);
                else if (count == 3 && !strcmp(paths[i].name, arguments[1])) {
                        walk_often(&paths[i], atol(arguments[2]));
                        return 0;
                }
        }
        must(count == 1, "no such path");
        return 0;
}
