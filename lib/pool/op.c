#include "pool/op.h"

#include "base/clock.h"
#include "pool/doubt.h"
#include "pool/waitq.h"

bool op_is_blocking(const struct lido_pool *pool, const struct lido_slot *slot)
{
        enum slot_state state = word_state(load_relaxed(&slot->word));
        const struct lido_factory *factory = &pool->factory;

        if (!(factory->flags & LIDO_FACTORY_BLOCKING))
                return false;
        return !(state == SLOT_CLOSING && slot->is_detached) && !(state == SLOT_CHECKING && !factory->check) &&
               !(state == SLOT_RESETTING && !factory->reset);
}

int64_t op_timeout_ms(const struct lido_pool *pool, enum slot_state state)
{
        switch (state) {
        case SLOT_OPENING:
                return pool_options(pool)->open_timeout_ms;
        case SLOT_CHECKING:
                return pool_options(pool)->check_timeout_ms;
        case SLOT_RESETTING:
                return pool_options(pool)->reset_timeout_ms;
        default:
                return pool_options(pool)->close_timeout_ms;
        }
}

static void call_hook(struct lido_pool *pool, enum slot_state state, lido_op op, void *object, bool is_detached)
{
        const struct lido_factory *factory = &pool->factory;
        struct thread_self *self = thread_self();
        void *outer = self->in_hook;

        self->in_hook = pool;
        if (state == SLOT_OPENING)
                factory->open(op, factory->context);
        else if (state == SLOT_CHECKING && factory->check)
                factory->check(op, object, factory->context);
        else if (state == SLOT_RESETTING && factory->reset)
                factory->reset(op, object, factory->context);
        else if (state == SLOT_CLOSING && !is_detached)
                factory->close(op, object, factory->context);
        else
                lido_op_done(op, state == SLOT_RESETTING ? LIDO_ENOTSUP : LIDO_OK);
        self->in_hook = outer;
}

void op_begin(struct lido_pool *pool, struct lido_slot *slot, uint64_t ticket)
{
        enum slot_state state = word_state(load_acquire(&slot->word));
        lido_op op = { slot, ticket };
        uint64_t now = clock_now_ns();

        store_relaxed(&slot->op_began_ns, now);
        if (state != SLOT_OPENING)
                store_relaxed(&slot->op_inline, OP_TO_KEEPER);
        store_relaxed(&slot->op_due_ns, clock_after_ms(now, op_timeout_ms(pool, state)));
        call_hook(pool, state, op, load_relaxed(&slot->object), slot->is_detached);
}

/* Spend the ticket. Returns: LIDO_OK and the state of the op; or why not. */
static int answer(lido_op op, enum slot_state *ret_state)
{
        uint64_t seen;

        if (!region_has(op.slot) || op.ticket != word_generation(op.ticket))
                return LIDO_EINVAL;
        seen = load_acquire(&op.slot->word);
        do {
                if (word_generation(seen) != op.ticket)
                        return op.ticket - load_relaxed(&op.slot->first_generation) < word_generation(seen) - load_relaxed(&op.slot->first_generation)
                                       ? LIDO_ESTALE
                                       : LIDO_EINVAL;
                if (!op_is_at_work(seen))
                        return LIDO_EDOUBLE;
        } while (!slot_move(op.slot, &seen, seen | MARK_ANSWERED));
        *ret_state = word_state(seen);
        return LIDO_OK;
}

static int reject(lido_op op, int code)
{
        struct lido_event event = { .type = LIDO_EVENT_MISUSE, .code = code,
                                    .reason = "an op was answered twice or too late" };

        if (code != LIDO_EINVAL)
                pool_emit_late(load_acquire(&op.slot->pool), op.slot, op.ticket, &event);
        return code;
}

static void hand_in(struct lido_slot *slot, int status)
{
        struct lido_pool *pool = load_relaxed(&slot->pool);

        slot->status = status;
        if (exchange_acq_rel(&slot->op_inline, OP_TAKEN_INLINE) != OP_TO_BORROWER)
                pool_send(pool, slot);
}

int lido_op_opened(lido_op op, void *object)
{
        enum slot_state state;
        int rc;

        if (region_has(op.slot) && word_state(load_acquire(&op.slot->word)) != SLOT_OPENING &&
            word_generation(load_acquire(&op.slot->word)) == op.ticket)
                return LIDO_EINVAL;
        rc = answer(op, &state);
        if (rc != LIDO_OK)
                return reject(op, rc);
        store_relaxed(&op.slot->object, object);
        hand_in(op.slot, LIDO_OK);
        return LIDO_OK;
}

static void tell_failure(struct lido_pool *pool, struct lido_slot *slot, enum slot_state state,
                         const struct lido_error *error)
{
        struct lido_event event = { .code = error->code, .slot = load_relaxed(&slot->index), .error = error,
                                    .age_ns = clock_now_ns() - load_relaxed(&slot->op_began_ns) };

        event.type = state == SLOT_OPENING    ? LIDO_EVENT_OPEN_FAILED
                     : state == SLOT_CHECKING ? LIDO_EVENT_CHECK_FAILED
                                              : LIDO_EVENT_RESET_FAILED;
        if (state != SLOT_CLOSING)
                pool_emit(pool, &event);
}

static int answer_failure(lido_op op, const struct lido_error *error)
{
        enum slot_state state;
        struct lido_pool *pool;
        int rc = answer(op, &state);

        if (rc != LIDO_OK)
                return reject(op, rc);
        pool = load_relaxed(&op.slot->pool);
        if (state == SLOT_OPENING) {
                mutex_lock(&pool->waitq.lock);
                pool->last_error = *error;
                pool->last_error_ns = clock_now_ns();
                mutex_unlock(&pool->waitq.lock);
                op.slot->failure = (uint8_t)error->failure;
        }
        tell_failure(pool, op.slot, state, error);
        hand_in(op.slot, error->code);
        return LIDO_OK;
}

int lido_op_failed(lido_op op, const struct lido_error *error)
{
        struct lido_error copy;

        if (!error)
                return LIDO_EINVAL;
        copy = *error;
        copy.text[sizeof copy.text - 1] = '\0';
        copy.sqlstate[sizeof copy.sqlstate - 1] = '\0';
        if (copy.code == LIDO_OK)
                copy.code = LIDO_EFACTORY;
        return answer_failure(op, &copy);
}

int lido_op_done(lido_op op, int status)
{
        struct lido_error error = { .code = status };
        enum slot_state state;
        const char *text = lido_strerror(status);
        int rc;

        if (status != LIDO_OK) {
                for (size_t i = 0; i + 1 < sizeof error.text && text[i]; i++)
                        error.text[i] = text[i];
                return answer_failure(op, &error);
        }
        if (region_has(op.slot) && (load_acquire(&op.slot->word) & ~MARKS) == word_make(op.ticket, SLOT_OPENING))
                return LIDO_EINVAL;
        rc = answer(op, &state);
        if (rc != LIDO_OK)
                return reject(op, rc);
        hand_in(op.slot, LIDO_OK);
        return LIDO_OK;
}

uint64_t lido_op_deadline_ns(lido_op op)
{
        uint64_t seen;

        if (!region_has(op.slot))
                return 0;
        seen = load_acquire(&op.slot->word);
        if (word_generation(seen) != op.ticket || !op_is_at_work(seen))
                return 0;
        return load_relaxed(&op.slot->op_due_ns);
}

int lido_op_is_cancelled(lido_op op)
{
        uint64_t due = lido_op_deadline_ns(op);

        return due == 0 || (load_relaxed(&op.slot->word) & MARK_OVERDUE) || clock_now_ns() >= due;
}

void op_want(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum slot_state state)
{
        store_relaxed(&slot->op_due_ns, CLOCK_NEVER); /* until it begins */
        slot_pass_on(slot, generation, state);
        pool_send(pool, slot);
}

void op_want_close(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum lido_close_reason reason)
{
        slot->reason = (uint8_t)reason;
        op_want(pool, slot, generation, SLOT_CLOSING);
}

/* Drawn once, and subtracted, so that the lifetime is never exceeded and a fleet does not reconnect together. */
static uint64_t draw_expiry(struct lido_pool *pool, uint64_t number, uint64_t now)
{
        uint64_t life = clock_after_ms(0, pool_options(pool)->lifetime_ms);
        struct random random = random_after((struct random){ ~pool->seed }, number);

        if (life == CLOCK_NEVER)
                return CLOCK_NEVER;
        life -= random_below(&random, life / 100 * pool_options(pool)->lifetime_jitter + 1);
        return life > CLOCK_NEVER - now ? CLOCK_NEVER : now + life;
}

bool op_finish_open(struct lido_pool *pool, struct lido_slot *slot, uint64_t *ret_generation, uint64_t *ret_marks)
{
        uint64_t ticket = word_generation(load_relaxed(&slot->word));
        struct lido_event event = { .type = LIDO_EVENT_OPENED, .slot = load_relaxed(&slot->index) };
        uint64_t now = clock_now_ns(), number;

        sub_relaxed(&pool->opening, 1);
        if (slot->status != LIDO_OK) {
                add_relaxed(&pool->open_failed, 1);
                pool_vacate(pool, slot, ticket);
                return false;
        }
        number = add_relaxed(&pool->opened, 1);
        event.age_ns = now - load_relaxed(&slot->op_began_ns);
        pool_record(&pool->open_time.sum_ns, &pool->open_time.max_ns, pool->open_time.bucket, event.age_ns);
        store_relaxed(&slot->born_ns, now);
        slot->expires_ns = draw_expiry(pool, number, now);
        store_relaxed(&slot->checked_ns, now);
        slot->leases_at_birth = (uint32_t)load_relaxed(&slot->leases);
        store_relaxed(&slot->life, ticket);
        pool_emit(pool, &event);
        *ret_marks = slot_pass_on(slot, ticket, SLOT_LEASED);
        *ret_generation = ticket + GENERATION_ONE;
        return true;
}

static void finish_open(struct lido_pool *pool, struct lido_slot *slot)
{
        uint64_t generation, marks;

        if (op_finish_open(pool, slot, &generation, &marks))
                pool_decide(pool, slot, generation, marks & ~MARK_ANSWERED);
}

static void finish_close(struct lido_pool *pool, struct lido_slot *slot, uint64_t ticket)
{
        struct lido_event event = { .type = LIDO_EVENT_CLOSED, .slot = load_relaxed(&slot->index), .code = slot->reason,
                                    .reason = lido_close_reason_name(slot->reason) };

        event.age_ns = clock_now_ns() - load_relaxed(&slot->born_ns);
        add_relaxed(&pool->closed[slot->reason], 1);
        pool_vacate(pool, slot, ticket);
        pool_emit(pool, &event);
}

/* A check or a reset has been answered. What a check has found out about one object is a doubt of those that have not been
 * heard of since it began; and who waits for this one is to have another. */
static void finish_upkeep(struct lido_pool *pool, struct lido_slot *slot, uint64_t word)
{
        bool was_check = word_state(word) == SLOT_CHECKING;
        uint64_t generation = word_generation(word), began_ns = load_relaxed(&slot->op_began_ns), marks;

        add_relaxed(was_check ? &pool->checked : &pool->was_reset, 1);
        if (slot->status != LIDO_OK) {
                slot->reason = was_check ? LIDO_CLOSE_CHECK : LIDO_CLOSE_RESET;
                if (was_check)
                        doubt_idle(pool, began_ns);
                op_want(pool, slot, generation, SLOT_CLOSING); /* last: with it the pool may end */
        } else {
                store_relaxed(&slot->checked_ns, clock_now_ns());
                marks = slot_pass_on(slot, generation, SLOT_LEASED);
                pool_decide(pool, slot, generation + GENERATION_ONE, marks & ~MARK_ANSWERED);
        }
        if (was_check && (load_seq_cst(&pool->gate) & GATE_COUNT)) /* pairs with count_checks in doubt.c */
                waitq_serve(pool);
}

void op_finish(struct lido_pool *pool, struct lido_slot *slot)
{
        uint64_t word = load_acquire(&slot->word);

        debug_assert(word & MARK_ANSWERED);
        switch (word_state(word)) {
        case SLOT_OPENING:
                finish_open(pool, slot);
                break;
        case SLOT_CLOSING:
                finish_close(pool, slot, word_generation(word));
                break;
        default:
                finish_upkeep(pool, slot, word);
        }
}
