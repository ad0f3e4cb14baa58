#include "sim/face.h"

#include "sim/factory.h"

#include <string.h>

#include "lido/keyed.h"
#include "sim/sim.h"

enum answer_kind { ANSWER_OPEN, ANSWER_CHECK, ANSWER_RESET, ANSWER_CLOSE };

static const char *const who_else[] = {"nobody", "the keeper"};

static const char *name_of(int holder)
{
        return holder >= 0 ? sim_name(holder) : who_else[-holder - 1];
}

static void no_lock_is_held(const char *hook)
{
        if (sim_locks())
                sim_fail("%s is called with a lock held", hook);
}

/* ---- who has it ------------------------------------------------------------------------------------------
 */

void factory_taken(struct object *object, int holder)
{
        if (object->state != OBJECT_OPEN)
                sim_fail("object %d is lent to %s when it is not open", object->number, name_of(holder));
        if (object->holder != NOBODY)
                sim_fail("object %d is held twice: by %s and %s", object->number, name_of(object->holder),
                         name_of(holder));
        object->holder = holder;
        object->is_contested = false;
}

void factory_returned(struct object *object, int holder)
{
        if (object->holder != holder)
                sim_fail("object %d is returned by %s but held by %s", object->number, name_of(holder),
                         name_of(object->holder));
        object->holder = NOBODY;
}

/* ---- answers ---------------------------------------------------------------------------------------------
 */

static struct object *new_object(struct factory *factory)
{
        for (unsigned i = 0; i < FACTORY_OBJECTS; i++) {
                struct object *object = &factory->object[i];

                if (i == factory->objects || object->state == OBJECT_CLOSED) {
                        factory->objects += i == factory->objects;
                        memset(object, 0, sizeof *object);
                        object->number = (int)++factory->opened;
                        object->holder = NOBODY;
                        object->state = OBJECT_OPEN;
                        return object;
                }
        }
        sim_fail("more than %d objects", FACTORY_OBJECTS);
}

static void answer_open(struct factory *factory, const struct answer *answer)
{
        struct lido_error error = {.code = LIDO_EFACTORY, .failure = answer->failure};
        int rc;

        if (answer->failure < 0) {
                struct object *object = new_object(factory);

                object->key = answer->key;
                rc = lido_op_opened(answer->op, object);
        } else {
                factory->alive--;
                factory->failed++;
                rc = lido_op_failed(answer->op, &error);
        }
        if (rc != LIDO_OK)
                sim_fail("the answer to an open is refused: %s", lido_err_name(rc));
}

static void give_answer(struct factory *factory, const struct answer *answer)
{
        struct object *object = answer->object;
        int rc = LIDO_OK;

        switch (answer->kind) {
        case ANSWER_OPEN:
                answer_open(factory, answer);
                return;
        case ANSWER_CLOSE:
                object->state = OBJECT_CLOSED;
                factory->alive--;
                factory->closed++;
                rc = lido_op_done(answer->op, LIDO_OK);
                break;
        default:
                object->holder = NOBODY;
                rc = lido_op_done(answer->op, answer->failure < 0 ? LIDO_OK : LIDO_EFACTORY);
        }
        if (rc != LIDO_OK)
                sim_fail("an answer is refused: %s", lido_err_name(rc));
}

static void answer_in(struct factory *factory, uint32_t us, struct answer answer)
{
        if (factory->program->has_blocking && !factory->at_once) { /* on a helper, which may sleep */
                if (sim_self() == factory->keeper)
                        sim_fail("a hook that may block is called on the loop");
                sim_sleep(sim_now() + us * NS_PER_US);
                give_answer(factory, &answer);
                return;
        }
        if (us == 0 || factory->at_once) {
                give_answer(factory, &answer);
                return;
        }
        if (factory->answers == FACTORY_OBJECTS)
                sim_fail("more than %d hooks at work", FACTORY_OBJECTS);
        answer.due_ns = sim_now() + us * NS_PER_US;
        factory->answer[factory->answers++] = answer;
        sim_hand_over(factory->server);
        sim_wake(factory->server);
}

static struct answer *next_answer(const struct factory *factory)
{
        const struct answer *next = NULL;

        for (uint32_t i = 0; i < factory->answers; i++)
                if (!next || factory->answer[i].due_ns < next->due_ns)
                        next = &factory->answer[i];
        return (struct answer *)(uintptr_t)next;
}

uint64_t factory_due(const struct factory *factory)
{
        const struct answer *next = next_answer(factory);

        return next ? next->due_ns : CLOCK_NEVER;
}

void factory_serve(void *context)
{
        struct factory *factory = context;

        for (;;) {
                struct answer *next = next_answer(factory), answer;

                if (!next || next->due_ns > sim_now()) {
                        sim_sleep(next ? next->due_ns : CLOCK_NEVER);
                        continue;
                }
                answer = *next;
                *next = factory->answer[--factory->answers];
                give_answer(factory, &answer);
        }
}

/* ---- the hooks -------------------------------------------------------------------------------------------
 */

static char key_of(lido_op op)
{
        size_t size;
        const char *key = lido_op_key(op, &size);

        if (!key || size != 1)
                sim_fail("an open has no key");
        return *key;
}

static void on_open(lido_op op, void *context)
{
        struct factory *factory = context;
        const struct program *program = factory->program;
        uint32_t place = program->roam_s ? factory->opens % program->opens : factory->opens;
        const struct open_script *script =
                &program->open[place < program->opens ? place : program->opens - 1];

        no_lock_is_held("open");
        if (!factory->at_once)
                factory->opens++;
        if (++factory->alive > factory->peak)
                factory->peak = factory->alive;
        if (factory->alive > factory->most)
                sim_fail("%u objects where there may be %u", factory->alive, factory->most);
        answer_in(factory, script->us,
                  (struct answer){
                          .op = op,
                          .kind = ANSWER_OPEN,
                          .key = factory->is_keyed ? key_of(op) : '\0',
                          .failure = factory->at_once ? -1 : script->failure});
}

static void on_close(lido_op op, void *memory, void *context)
{
        struct factory *factory = context;
        struct object *object = memory;

        no_lock_is_held("close");
        if (object->state != OBJECT_OPEN)
                sim_fail("object %d is closed when it is not open", object->number);
        if (object->holder != NOBODY)
                sim_fail("object %d is closed while %s has it", object->number, name_of(object->holder));
        if (object->is_watched)
                sim_fail("object %d is closed while it is watched", object->number);
        object->state = OBJECT_CLOSING;
        answer_in(factory, factory->program->close_us,
                  (struct answer){.op = op, .object = object, .kind = ANSWER_CLOSE});
}

static void upkeep(struct factory *factory, lido_op op, struct object *object, int kind)
{
        uint32_t bad = factory->program->bad_check;

        no_lock_is_held("upkeep");
        factory->checks++;
        factory_taken(object, KEEPER);
        answer_in(
                factory, kind == ANSWER_CHECK ? factory->program->check_us : factory->program->reset_us,
                (struct answer){.op = op,
                                .object = object,
                                .kind = kind,
                                .failure = bad && factory->checks % bad == 0 ? LIDO_FAILURE_TRANSIENT : -1});
}

static void on_check(lido_op op, void *object, void *context)
{
        upkeep(context, op, object, ANSWER_CHECK);
}

static void on_reset(lido_op op, void *object, void *context)
{
        upkeep(context, op, object, ANSWER_RESET);
}

static enum lido_peek on_peek(void *memory, void *context)
{
        struct factory *factory = context;
        struct object *object = memory;
        uint32_t bad = factory->program->bad_peek;

        no_lock_is_held("peek");
        if (object->state != OBJECT_OPEN || object->holder != NOBODY)
                sim_fail("object %d is peeked at while %s has it", object->number, name_of(object->holder));
        if (!bad || ++factory->peeks % bad != 0)
                return LIDO_PEEK_OK;
        return factory->peeks & 1 ? LIDO_PEEK_DEAD : LIDO_PEEK_CHECK;
}

static enum lido_verdict on_verdict(void *memory, void *context)
{
        struct factory *factory = context;
        const struct object *object = memory;

        no_lock_is_held("verdict");
        if (object->state != OBJECT_OPEN || object->holder != NOBODY)
                sim_fail("object %d is judged while %s has it", object->number, name_of(object->holder));
        switch (++factory->peeks % 4) {
        case 0:
                return LIDO_VERDICT_RESET;
        case 1:
                return LIDO_VERDICT_DEAD;
        default:
                return LIDO_VERDICT_CLEAN;
        }
}

/* What interrupt touches must not be freed meanwhile. */
static void on_interrupt(void *memory, void *context)
{
        struct object *object = memory;
        int number = object->number;

        (void)context;
        no_lock_is_held("interrupt");
        for (int i = 0; i < 2; i++) {
                if (object->number != number || object->state == OBJECT_CLOSED ||
                    object->state == OBJECT_DETACHED)
                        sim_fail("object %d is interrupted after its end", number);
                thread_yield();
        }
}

static void on_watch(lido_handle handle, void *memory, struct uv_loop_s *loop, void *context)
{
        struct object *object = memory;

        (void)loop;
        (void)context;
        no_lock_is_held("watch");
        if (object->is_watched || object->state != OBJECT_OPEN)
                sim_fail("object %d is watched at the wrong time", object->number);
        object->is_watched = true;
        object->handle = handle;
        sim_publish(object);
}

static void on_unwatch(void *memory, void *context)
{
        struct object *object = memory;

        (void)context;
        no_lock_is_held("unwatch");
        if (!object->is_watched)
                sim_fail("object %d is unwatched when it is not watched", object->number);
        object->is_watched = false;
}

static void on_end(void *context)
{
        struct factory *factory = context;

        no_lock_is_held("end");
        if (factory->ended++)
                sim_fail("the factory ends twice");
        if (0 - factory->alive > factory->detaching || factory->answers) /* a thief may have ended what is being detached */
                sim_fail("the factory ends with %u objects alive", factory->alive);
}

void factory_init(struct factory *factory, const struct program *program)
{
        memset(factory, 0, sizeof *factory);
        factory->program = program;
        factory->most = program->max;
        factory->hooks = (struct lido_factory)LIDO_FACTORY_INIT;
        factory->hooks.kind = "model";
        factory->hooks.context = factory;
        factory->hooks.open = on_open;
        factory->hooks.close = on_close;
        factory->hooks.check = program->has_check ? on_check : NULL;
        factory->hooks.reset = program->has_reset ? on_reset : NULL;
        factory->hooks.peek = program->has_peek ? on_peek : NULL;
        factory->hooks.verdict = program->has_verdict ? on_verdict : NULL;
        factory->hooks.interrupt = program->has_interrupt ? on_interrupt : NULL;
        factory->hooks.watch = on_watch;
        factory->hooks.unwatch = on_unwatch;
        factory->hooks.end = on_end;
}
