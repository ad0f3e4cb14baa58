/* The shared library as a plug-in loads it: dlopen, use, dlclose, while threads that have used it go on. This program calls
 * nothing but what dlsym finds. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lido.h"
#include "support/gate.h"
#include "support/suite.h"

static struct {
        int (*pool_open)(struct lido_buffer_pool **ret_pool, const struct lido_buffer_options *options);
        void (*pool_free)(struct lido_buffer_pool *pool);
        int (*try_acquire)(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffer, const char *site);
        int (*release)(void *buffer, const char *site);
} lido;

static void find(void *library, const char *name, void *ret_function)
{
        *(void **)ret_function = dlsym(library, name);
        ck_assert_msg(*(void **)ret_function != NULL, "%s", name);
}

static char path[4096];

static void *load(void)
{
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

        ck_assert_msg(library != NULL, "%s", dlerror());
        find(library, "lido_buffer_pool_open", &lido.pool_open);
        find(library, "lido_buffer_pool_free", &lido.pool_free);
        find(library, "lido_buffer_try_acquire_at", &lido.try_acquire);
        find(library, "lido_buffer_release_at", &lido.release);
        return library;
}

static struct gate gate;

static void *use_and_end(void *pool)
{
        void *buffer;

        ck_assert_int_eq(lido.try_acquire(pool, 100, &buffer, "here"), LIDO_OK);
        ck_assert_int_eq(lido.release(buffer, "here"), LIDO_OK);
        gate_wait(&gate);
        return NULL;
}

START_TEST(a_thread_that_has_used_the_library_may_end_after_it_was_closed)
{
        struct lido_buffer_pool *pool;
        void *library = load();
        pthread_t thread;

        gate_init(&gate, false);
        ck_assert_int_eq(lido.pool_open(&pool, NULL), LIDO_OK);
        ck_assert_int_eq(pthread_create(&thread, NULL, use_and_end, pool), 0);
        gate_await(&gate, 1);
        lido.pool_free(pool);
        ck_assert_int_eq(dlclose(library), 0);
        gate_open(&gate);
        ck_assert_int_eq(pthread_join(thread, NULL), 0); /* its caches end with it */
}
END_TEST

START_TEST(a_process_may_fork_after_it_was_closed)
{
        struct lido_buffer_pool *pool;
        void *library = load();
        int status;
        pid_t child;

        ck_assert_int_eq(lido.pool_open(&pool, NULL), LIDO_OK);
        lido.pool_free(pool);
        ck_assert_int_eq(dlclose(library), 0);
        child = fork();
        if (child == 0)
                _exit(0);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
        const char *build = getenv("LIDO_BUILD");

        snprintf(path, sizeof path, "%s/lib/.libs/liblido.so", build ? build : ".");
        if (access(path, R_OK) != 0) {
                printf("no shared library was built\n");
                return 77;
        }
        return suite_run("unload", (const TTest *[]){
                                           a_thread_that_has_used_the_library_may_end_after_it_was_closed,
                                           a_process_may_fork_after_it_was_closed,
                                           NULL,
                                   });
}
