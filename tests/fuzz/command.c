/* Every answer ends in a newline and a NUL and is as long as it says; whatever was commanded, the pool can still be used. */
#include "fuzz/text.h"

#include <strings.h>

#include "lido/admin.h"
#include "lido/pool.h"
#include "lido/service.h"

static struct lido_pool *pool;
static int objects[64];
static _Atomic unsigned next;

static void open_object(lido_op op, void *context)
{
        (void)context;
        (void)lido_op_opened(op, &objects[next++ % 64]);
}

static void close_object(lido_op op, void *object, void *context)
{
        (void)object, (void)context;
        (void)lido_op_done(op, LIDO_OK);
}

static void set_up(void)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_service *service;

        factory.kind = "thing";
        factory.open = open_object;
        factory.close = close_object;
        options.max = 4;
        must(lido_service_start(&service, NULL) == LIDO_OK);
        must(lido_pool_open(&pool, service, &factory, &options) == LIDO_OK);
}

/* Objects cost nothing here, but a pool of a thousand million of them does. */
static bool is_ruinous(const char *line)
{
        return strcasestr(line, "min") || strcasestr(line, "max");
}

static void command(const struct lido_commands *on, const char *line)
{
        char text[16384], little[16];
        size_t length = lido_command(on, line, text, sizeof text);

        must(length > 0);
        if (length >= sizeof text)
                length = sizeof text - 1;
        else
                must(text[length - 1] == '\n');
        must(strlen(text) == length);
        lido_command(on, "show version", little, sizeof little);
        must(memchr(little, '\0', sizeof little) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct lido_commands on = LIDO_COMMANDS_INIT;
        char *text = text_of(data, size), *rest = text, *line;
        lido_lease lease;

        if (!pool)
                set_up();
        on.pools = &pool;
        on.count = 1;
        on.wait_timeout_ms = 1;
        while ((line = strsep(&rest, "\n")) != NULL)
                if (!is_ruinous(line))
                        command(&on, line);
        free(text);
        command(&on, "resume");
        must(lido_acquire(pool, 60000, &lease) == LIDO_OK);
        must(lido_release(lease) == LIDO_OK);
        return 0;
}
