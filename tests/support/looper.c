#include "support/looper.h"

#include <string.h>

void looper_init(struct looper *looper)
{
        looper->is_closed = false;
        must(uv_loop_init(&looper->uv) == 0);
        must(lido_loop_open(&looper->loop, &looper->uv) == LIDO_OK);
}

static void note_closed(void *context)
{
        struct looper *looper = context;

        looper->is_closed = true;
}

void looper_fini(struct looper *looper)
{
        lido_loop_close(looper->loop, note_closed, looper);
        must(uv_run(&looper->uv, UV_RUN_DEFAULT) == 0);
        must(looper->is_closed);
        must(uv_loop_close(&looper->uv) == 0);
}

bool looper_turn(struct looper *looper)
{
        uv_run(&looper->uv, UV_RUN_NOWAIT);
        return true;
}

static void note(struct lido_request *request, int status, lido_lease lease)
{
        struct asked *asked = (struct asked *)(void *)request;

        asked->calls++;
        asked->status = status;
        asked->lease = lease;
        asked->called_ns = real_now_ns();
        if (asked->turn)
                asked->place = (*asked->turn)++;
        if (asked->releases && status == LIDO_OK)
                must(lido_release(lease) == LIDO_OK);
}

int looper_ask(struct looper *looper, struct asked *asked, struct lido_pool *pool, int64_t timeout_ms)
{
        memset(&asked->request, 0, sizeof asked->request);
        asked->request.loop = looper->loop;
        asked->calls = 0;
        asked->status = 1;
        return lido_acquire_async(pool, &asked->request, timeout_ms, note);
}

int looper_await(struct looper *looper, struct asked *asked)
{
        ck_eventually(looper_turn(looper) && asked->calls > 0);
        return asked->status;
}
