#include "support/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/patience.h"

static void raise_most(_Atomic uint32_t *most, uint32_t value)
{
        uint32_t seen = atomic_load(most);

        while (seen < value && !atomic_compare_exchange_weak(most, &seen, value))
                ;
}

static struct fake_object *object_new(struct fake *fake)
{
        struct fake_object *object = calloc(1, sizeof *object);

        must(object);
        object->fake = fake;
        object->serial = atomic_fetch_add(&fake->opened, 1) + 1;
        raise_most(&fake->most_alive, atomic_fetch_add(&fake->alive, 1) + 1);
        return object;
}

/* Of the object alone; the pool's count of those alive is a matter of its own. */
static void object_end(struct fake_object *object)
{
        struct fake *fake = object->fake;

        if (atomic_load(&object->users) != 0)
                atomic_fetch_add(&fake->ended_in_use, 1);
        if (atomic_load(&object->is_watched))
                atomic_fetch_add(&fake->ended_watched, 1);
        free(object);
        atomic_fetch_add(&fake->closed, 1);
}

static void object_free(struct fake_object *object)
{
        struct fake *fake = object->fake;

        object_end(object);
        atomic_fetch_sub(&fake->alive, 1);
}

/* ---- answers --------------------------------------------------------------------------------------------- */

static int answer_once(struct fake *fake, const struct fake_op *job, struct fake_object *object)
{
        struct lido_error error = { .code = job->step.status, .failure = job->step.failure };
        int rc;

        if (job->step.status != LIDO_OK) {
                snprintf(error.text, sizeof error.text, "%s", job->step.text ? job->step.text : "the script says so");
                snprintf(error.sqlstate, sizeof error.sqlstate, "%s", job->step.sqlstate ? job->step.sqlstate : "");
                rc = lido_op_failed(job->op, &error);
        } else if (job->hook == FAKE_OPEN) {
                rc = lido_op_opened(job->op, object);
        } else {
                rc = lido_op_done(job->op, LIDO_OK);
        }
        if (rc != LIDO_OK)
                atomic_fetch_add(&fake->refused_answers, 1);
        return rc;
}

/* The object is made before, and freed before, the answer: after it the pool may do with the slot as it likes. */
static int answer(struct fake *fake, const struct fake_op *job)
{
        struct fake_object *object = job->object;
        int rc;

        if (job->hook == FAKE_OPEN && job->step.status == LIDO_OK)
                object = object_new(fake);
        if (job->hook == FAKE_CLOSE)
                object_free(object);
        if (job->hook == FAKE_RESET && job->step.status == LIDO_OK)
                atomic_store(&object->is_dirty, false);
        atomic_fetch_sub(&fake->at_work[job->hook], 1);
        rc = answer_once(fake, job, object);
        if (rc != LIDO_OK && job->hook == FAKE_OPEN && job->step.status == LIDO_OK)
                object_free(object);
        return rc;
}

static void *answer_posted(void *argument)
{
        struct fake *fake = argument;

        pthread_mutex_lock(&fake->lock);
        while (fake->posted || !fake->is_ending) {
                struct fake_op *job = fake->posted;

                if (!job) {
                        pthread_cond_wait(&fake->changed, &fake->lock);
                        continue;
                }
                fake->posted = job->next;
                pthread_mutex_unlock(&fake->lock);
                answer(fake, job);
                free(job);
                pthread_mutex_lock(&fake->lock);
        }
        pthread_mutex_unlock(&fake->lock);
        return NULL;
}

static void append(struct fake_op **list, struct fake_op *job)
{
        while (*list)
                list = &(*list)->next;
        *list = job;
}

static void keep(struct fake *fake, const struct fake_op *job, struct fake_op **list)
{
        struct fake_op *copy = malloc(sizeof *copy);

        must(copy);
        *copy = *job;
        copy->next = NULL;
        pthread_mutex_lock(&fake->lock);
        if (list == &fake->posted && !fake->has_thread) {
                must(pthread_create(&fake->thread, NULL, answer_posted, fake) == 0);
                fake->has_thread = true;
        }
        append(list, copy);
        pthread_cond_broadcast(&fake->changed);
        pthread_mutex_unlock(&fake->lock);
}

static struct fake_step next_step(struct fake *fake, enum fake_hook hook)
{
        struct fake_step step;

        pthread_mutex_lock(&fake->lock);
        step = fake->always[hook];
        if (fake->once_count[hook] > 0) {
                step = fake->once[hook][0];
                fake->once_count[hook]--;
                memmove(fake->once[hook], fake->once[hook] + 1, fake->once_count[hook] * sizeof step);
        }
        pthread_mutex_unlock(&fake->lock);
        return step;
}

static void perform(struct fake *fake, enum fake_hook hook, lido_op op, struct fake_object *object)
{
        struct fake_op job = { op, hook, fake->choose ? fake->choose(fake, hook) : next_step(fake, hook), object, NULL };

        if (hook == FAKE_CHECK && atomic_load(&object->is_broken) && job.step.status == LIDO_OK)
                job.step.status = LIDO_EFACTORY;
        if (object && atomic_load(&object->users) != 0)
                atomic_fetch_add(&fake->intrusions, 1);
        raise_most(&fake->most_at_work[hook], atomic_fetch_add(&fake->at_work[hook], 1) + 1);
        atomic_fetch_add(&fake->called[hook], 1);
        if (fake->on_hook)
                fake->on_hook(fake, hook, object);
        switch (job.step.way) {
        case FAKE_THREAD:
                keep(fake, &job, &fake->posted);
                return;
        case FAKE_LATER:
                keep(fake, &job, &fake->later[hook]);
                return;
        case FAKE_GATE:
                gate_wait(&fake->gate[hook]);
                answer(fake, &job);
                return;
        case FAKE_TWICE:
                answer(fake, &job);
                answer_once(fake, &job, NULL);
                return;
        default:
                answer(fake, &job);
        }
}

int fake_answer(struct fake *fake, enum fake_hook hook)
{
        struct fake_op *job;
        int rc;

        pthread_mutex_lock(&fake->lock);
        job = fake->later[hook];
        if (job)
                fake->later[hook] = job->next;
        pthread_mutex_unlock(&fake->lock);
        ck_assert_msg(job != NULL, "no op waits to be answered");
        rc = answer(fake, job);
        free(job);
        return rc;
}

unsigned fake_kept(struct fake *fake, enum fake_hook hook)
{
        unsigned count = 0;

        pthread_mutex_lock(&fake->lock);
        for (struct fake_op *job = fake->later[hook]; job; job = job->next)
                count++;
        pthread_mutex_unlock(&fake->lock);
        return count;
}

void fake_answer_all(struct fake *fake)
{
        for (int hook = 0; hook < FAKE_HOOKS; hook++)
                while (fake_kept(fake, (enum fake_hook)hook) > 0)
                        fake_answer(fake, (enum fake_hook)hook);
}

/* ---- the hooks ------------------------------------------------------------------------------------------- */

static void hook_open(lido_op op, void *context)
{
        perform(context, FAKE_OPEN, op, NULL);
}

static void hook_close(lido_op op, void *object, void *context)
{
        perform(context, FAKE_CLOSE, op, object);
}

static void hook_check(lido_op op, void *object, void *context)
{
        perform(context, FAKE_CHECK, op, object);
}

static void hook_reset(lido_op op, void *object, void *context)
{
        perform(context, FAKE_RESET, op, object);
}

static void hook_cancel(lido_op op, void *context)
{
        struct fake *fake = context;

        (void)op;
        atomic_fetch_add(&fake->cancels, 1);
}

static enum lido_peek hook_peek(void *object, void *context)
{
        struct fake_object *o = object;
        struct fake *fake = context;

        atomic_fetch_add(&fake->peeks, 1);
        return atomic_load(&o->is_broken) ? LIDO_PEEK_DEAD : (enum lido_peek)atomic_load(&fake->peek_says);
}

static enum lido_verdict hook_verdict(void *object, void *context)
{
        struct fake_object *o = object;
        struct fake *fake = context;

        atomic_fetch_add(&fake->verdicts, 1);
        if (atomic_load(&o->is_broken))
                return LIDO_VERDICT_DEAD;
        return atomic_load(&o->is_dirty) ? LIDO_VERDICT_RESET : (enum lido_verdict)atomic_load(&fake->verdict_says);
}

static void hook_interrupt(void *object, void *context)
{
        struct fake_object *o = object;
        struct fake *fake = context;

        atomic_store(&o->is_broken, true);
        atomic_fetch_add(&fake->interrupts, 1);
}

static void hook_watch(lido_handle handle, void *object, struct uv_loop_s *loop, void *context)
{
        struct fake_object *o = object;
        struct fake *fake = context;

        (void)loop;
        o->handle = handle;
        atomic_store(&o->is_watched, true);
        atomic_fetch_add(&fake->watches, 1);
}

static void hook_unwatch(void *object, void *context)
{
        struct fake_object *o = object;
        struct fake *fake = context;
        bool is_dropped;

        atomic_fetch_add(&fake->unwatches, 1);
        pthread_mutex_lock(&fake->lock);
        atomic_store(&o->is_watched, false);
        is_dropped = o->is_dropped;
        pthread_mutex_unlock(&fake->lock);
        if (is_dropped)
                object_end(o);
}

static void hook_end(void *context)
{
        struct fake *fake = context;

        atomic_fetch_add(&fake->ends, 1);
}

/* ---- its life -------------------------------------------------------------------------------------------- */

void fake_init(struct fake *fake)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;

        memset(fake, 0, sizeof *fake);
        factory.kind = "fake";
        factory.context = fake;
        factory.open = hook_open;
        factory.close = hook_close;
        factory.check = hook_check;
        factory.reset = hook_reset;
        factory.cancel = hook_cancel;
        factory.interrupt = hook_interrupt;
        factory.end = hook_end;
        fake->factory = factory;
        for (int hook = 0; hook < FAKE_HOOKS; hook++)
                gate_init(&fake->gate[hook], false);
        pthread_mutex_init(&fake->lock, NULL);
        pthread_cond_init(&fake->changed, NULL);
}

void fake_add_hooks(struct fake *fake, unsigned hooks)
{
        if (hooks & FAKE_HAS_PEEK)
                fake->factory.peek = hook_peek;
        if (hooks & FAKE_HAS_VERDICT)
                fake->factory.verdict = hook_verdict;
        if (hooks & FAKE_HAS_WATCH) {
                fake->factory.watch = hook_watch;
                fake->factory.unwatch = hook_unwatch;
        }
}

void fake_check(struct fake *fake)
{
        must(atomic_load(&fake->overlaps) == 0);
        must(atomic_load(&fake->intrusions) == 0);
        must(atomic_load(&fake->ended_in_use) == 0);
        must(atomic_load(&fake->ended_watched) == 0);
}

void fake_fini(struct fake *fake)
{
        pthread_mutex_lock(&fake->lock);
        fake->is_ending = true;
        pthread_cond_broadcast(&fake->changed);
        pthread_mutex_unlock(&fake->lock);
        if (fake->has_thread)
                pthread_join(fake->thread, NULL);
        for (int hook = 0; hook < FAKE_HOOKS; hook++) {
                must(atomic_load(&fake->at_work[hook]) == 0);
                gate_fini(&fake->gate[hook]);
        }
        must(atomic_load(&fake->alive) == 0);
        fake_check(fake);
        pthread_cond_destroy(&fake->changed);
        pthread_mutex_destroy(&fake->lock);
}

void fake_always(struct fake *fake, enum fake_hook hook, struct fake_step step)
{
        pthread_mutex_lock(&fake->lock);
        fake->always[hook] = step;
        pthread_mutex_unlock(&fake->lock);
}

void fake_once(struct fake *fake, enum fake_hook hook, struct fake_step step)
{
        pthread_mutex_lock(&fake->lock);
        ck_assert_uint_lt(fake->once_count[hook], sizeof fake->once[hook] / sizeof fake->once[hook][0]);
        fake->once[hook][fake->once_count[hook]++] = step;
        pthread_mutex_unlock(&fake->lock);
}

struct fake_object *fake_make(struct fake *fake)
{
        struct fake_object *object = object_new(fake);

        fake_forget(fake);
        return object;
}

void fake_remember(struct fake *fake)
{
        atomic_fetch_add(&fake->alive, 1);
}

void fake_forget(struct fake *fake)
{
        atomic_fetch_sub(&fake->alive, 1);
}

/* After a detach the unwatch is still to come, on the loop. */
void fake_drop(struct fake_object *object)
{
        struct fake *fake = object->fake;
        bool is_watched;

        pthread_mutex_lock(&fake->lock);
        object->is_dropped = true;
        is_watched = atomic_load(&object->is_watched);
        pthread_mutex_unlock(&fake->lock);
        if (!is_watched)
                object_end(object);
}

void fake_use(struct fake_object *object)
{
        if (atomic_fetch_add(&object->users, 1) != 0)
                atomic_fetch_add(&object->fake->overlaps, 1);
}

void fake_unuse(struct fake_object *object)
{
        atomic_fetch_sub(&object->users, 1);
}

void fake_break(struct fake_object *object)
{
        atomic_store(&object->is_broken, true);
}
