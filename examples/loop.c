/* An event loop borrows objects of its own kind, and never blocks. */
#include <lido.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* The factory: here an object is some memory; anything that can be opened and closed will do. */
static void open_one(lido_op op, void *context)
{
        (void)context;
        lido_op_opened(op, malloc(64));
}

static void close_one(lido_op op, void *object, void *context)
{
        (void)context;
        free(object);
        lido_op_done(op, LIDO_OK);
}

static void on_lease(struct lido_request *request, int status, lido_lease lease)
{
        (void)request;
        printf("%s %p\n", lido_err_name(status), lido_object(lease));
        if (status == LIDO_OK)
                lido_release(lease);
}

int main(void)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_request request[3] = { { .data = NULL } };
        struct lido_service *service;
        struct lido_pool *pool;
        struct lido_loop *loop;

        factory.kind = "memory";
        factory.open = open_one;
        factory.close = close_one;
        if (lido_service_start(&service, NULL) != LIDO_OK || lido_pool_open(&pool, service, &factory, NULL) != LIDO_OK ||
            lido_loop_open(&loop, uv_default_loop()) != LIDO_OK)
                return 1;
        for (int i = 0; i < 3; i++) {
                request[i].loop = loop;
                lido_acquire_async(pool, &request[i], 1000, on_lease);
        }
        uv_run(uv_default_loop(), UV_RUN_DEFAULT); /* until every request has been called back */
        lido_loop_close(loop, NULL, NULL);
        uv_run(uv_default_loop(), UV_RUN_DEFAULT);
        lido_pool_free(pool);
        return lido_service_stop(service, 1000) != LIDO_OK;
}
