/* Four threads share two PostgreSQL connections. */
#include <lido.h>
#include <lido/pg.h>
#include <pthread.h>
#include <stdio.h>

static void *serve(void *pool)
{
        for (int i = 0; i < 100; i++) {
                lido_lease lease;
                int rc = lido_acquire(pool, 1000, &lease); /* waits for at most a second */

                if (rc != LIDO_OK) {
                        fprintf(stderr, "no connection: %s\n", lido_strerror(rc));
                        continue;
                }
                PQclear(PQexec(lido_pg_conn(lease), "select now()"));
                lido_release(lease); /* back to the pool, or straight to who waits */
        }
        return NULL;
}

int main(int argc, char **argv)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_service *service;
        struct lido_pool *pool;
        pthread_t thread[4];

        pg.conninfo = argc > 1 ? argv[1] : "";
        options.max = 2;
        if (lido_service_start(&service, NULL) != LIDO_OK || lido_pg_pool_open(&pool, service, &pg, &options) != LIDO_OK)
                return 1;
        for (int i = 0; i < 4; i++)
                pthread_create(&thread[i], NULL, serve, pool);
        for (int i = 0; i < 4; i++)
                pthread_join(thread[i], NULL);
        lido_pool_dump(pool, 1);
        lido_pool_free(pool);
        return lido_service_stop(service, 1000) != LIDO_OK;
}
