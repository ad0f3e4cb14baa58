/* What a borrower does: acquire in each way, give back in each way; and what must be true of it each time. */
#include "sim/face.h"

#include "sim/borrower.h"

void borrow_got(struct borrower *b, unsigned pool, lido_lease lease)
{
        struct object *object = lido_object(lease);

        if (!object)
                sim_fail("a lease that has just been given is not valid");
        factory_taken(object, b->coroutine);
        sim_note("%s has object %d", sim_name(b->coroutine), object->number);
        b->held[b->holds++] = (struct held){lease, object, &world.factory[pool], false, b->is_tagged};
        world.books.acquired++;
        law_limits();
}

bool borrow_is_expected(int rc)
{
        switch (rc) {
        case LIDO_EDEADLK:
                return true; /* looked into where it came */
        case LIDO_EPAUSED:
                return world.pauses > 0;
        case LIDO_EUNAVAIL:
        case LIDO_ECLOSED:
                return world.is_closing;
        case LIDO_EQUEUEFULL:
                return world.program->queue_limit != UINT32_MAX;
        case LIDO_EPERMANENT:
                return world.factory[0].failed + world.factory[1].failed > 0;
        default:
                return false;
        }
}

bool borrow_has_request(const struct borrower *b)
{
        for (int i = 0; i < REQUESTS; i++)
                if (b->request[i].is_pending)
                        return true;
        return false;
}

static int call_acquire(struct borrower *b, uint32_t us, lido_lease *ret_lease)
{
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;

        options.timeout_ms = us ? (int64_t)(us / 1000) : LIDO_NEVER;
        if (b->priority == LIDO_PRIORITY_NORMAL && !b->is_tagged)
                return lido_acquire_at(pool_of(b), options.timeout_ms, ret_lease, "world");
        options.site = "world";
        options.priority = b->priority;
        options.tag = b->is_tagged ? TAG : NULL;
        return lido_acquire_with(pool_of(b), &options, ret_lease);
}

/* For ever would be for ever where nobody else could end it. */
static uint32_t bounded(const struct borrower *b, uint32_t us)
{
        return us == 0 && (b->holds > 0 || b->has_paused || borrow_has_request(b)) ? 1000 : us;
}

/* Who finds that the object he has claimed is to go waits for a rotation's look at it before he reads the time from which his own
 * counts. */
static bool may_wait_for_a_look(void)
{
        for (uint32_t i = 0; i < world.program->threads; i++)
                for (int k = 0; k < PROGRAM_OPS; k++)
                        if (world.program->step[i][k].op == OP_ROTATE_SOME)
                                return true;
        return false;
}

static void check_time(int rc, uint64_t deadline, uint64_t earliest)
{
        uint64_t now = sim_now();

        if (deadline != CLOCK_NEVER && now > deadline && !may_wait_for_a_look())
                sim_fail("an acquire returns %llu ns after its deadline", (unsigned long long)(now - deadline));
        if (rc == LIDO_ETIMEDOUT && now < earliest)
                sim_fail("an acquire times out %llu ns early", (unsigned long long)(earliest - now));
        world.books.timed_out += rc == LIDO_ETIMEDOUT;
}

static void begin_acquiring(struct borrower *b)
{
        b->calls++;
        b->was_stuck = false;
        b->is_acquiring = true;
}

/* Whoever was told of a deadlock a moment ago may go on only after the one that has just timed out: what was true before
 * counts for all who are still in their acquire. */
static void end_acquiring(struct borrower *b)
{
        for (unsigned pool = 0; pool < world.program->pools; pool++)
                if (law_is_deadlock(pool))
                        for (uint32_t k = 0; k < world.program->threads; k++)
                                if (world.borrower[k].is_acquiring && world.borrower[k].pool == pool)
                                        world.borrower[k].was_stuck = true;
        b->is_acquiring = false;
}

void borrow_acquire(struct borrower *b, uint32_t us)
{
        bool is_strict = world.program->overtake_us < 0 && !world.is_paused && !sim_is_weak();
        bool is_paused = world.is_paused && b->pool == 0;
        uint64_t deadline, earliest;
        unsigned pauses = world.pauses;
        struct line before;
        lido_lease lease;
        int rc;

        if (b->holds == HELD)
                return;
        us = bounded(b, us);
        begin_acquiring(b);
        law_look_at_line(pool_of(b), &before);
        sim_deadline_in(us ? us * NS_PER_US : CLOCK_NEVER);
        rc = call_acquire(b, us, &lease);
        deadline = sim_deadline(&earliest);
        sim_deadline_in(CLOCK_NEVER);
        end_acquiring(b);
        if (rc == LIDO_EDEADLK && !b->was_stuck)
                sim_fail("acquire says LIDO_EDEADLK, though somebody could go on");
        if (rc == LIDO_OK && is_paused && pauses == world.pauses && !sim_is_weak())
                sim_fail("an object is lent while the pool is paused");
        sim_note("%s: acquire says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (sim_now() - before.now_ns > world.books.longest_wait_ns)
                world.books.longest_wait_ns = sim_now() - before.now_ns;
        check_time(rc, deadline, earliest);
        if (rc == LIDO_OK) {
                if (is_strict && !world.is_paused)
                        law_nobody_was_overtaken(&before, b);
                borrow_got(b, b->pool, lease);
        } else if (rc != LIDO_ETIMEDOUT && !borrow_is_expected(rc)) {
                sim_fail("acquire says %s", lido_err_name(rc));
        }
}

/* Two of a pool that may be of one. */
static bool may_be_impossible(bool is_of_one_pool)
{
        return is_of_one_pool && (world.program->max < 2 || world.has_resized);
}

/* Two leases at once: of its own pool, and of the other or, where there is none, of the same. */
void borrow_many(struct borrower *b, uint32_t us)
{
        unsigned other = world.program->pools > 1 ? 1 - b->pool : b->pool;
        struct lido_many many[2] = { { .pool = pool_of(b) }, { .pool = world.pool[other] } };
        bool was_tagged = b->is_tagged;
        uint64_t deadline, earliest;
        int rc;

        if (b->holds > HELD - 2)
                return;
        us = bounded(b, us);
        if (us == 0)
                us = 100000; /* by resize it may become more than there can be */
        begin_acquiring(b);
        sim_deadline_in(us * NS_PER_US);
        rc = lido_acquire_many_at(many, 2, us / 1000, "many");
        deadline = sim_deadline(&earliest);
        sim_deadline_in(CLOCK_NEVER);
        end_acquiring(b);
        sim_note("%s: acquire_many says %s", sim_name(b->coroutine), lido_err_name(rc));
        check_time(rc, deadline, earliest);
        if (rc == LIDO_OK) {
                b->is_tagged = false;
                borrow_got(b, b->pool, many[0].lease);
                borrow_got(b, other, many[1].lease);
                b->is_tagged = was_tagged;
                return;
        }
        if (many[0].lease.slot || many[1].lease.slot)
                sim_fail("acquire_many says %s and leaves a lease", lido_err_name(rc));
        if (rc != LIDO_ETIMEDOUT && !borrow_is_expected(rc) && !(rc == LIDO_EINVAL && may_be_impossible(b->pool == other)))
                sim_fail("acquire_many says %s", lido_err_name(rc));
}

/* Words of slots that are idle, to see whether one was idle all the time. */
static unsigned idle_words(struct lido_pool *pool, uint64_t *words)
{
        unsigned count = 0;

        for (uint32_t i = 0; i < CHUNK_SLOTS; i++) {
                uint64_t word = SIM_PEEK(&slots_at(&pool->slots, i)->word);

                words[i] = word_state(word) == SLOT_IDLE ? word : 0;
                count += words[i] != 0;
        }
        return count;
}

/* Whether a try may find nothing is only certain when nobody was in the middle of something as it began. */
void borrow_try(struct borrower *b)
{
        uint64_t before[CHUNK_SLOTS], after[CHUNK_SLOTS];
        bool is_exact = !sim_is_weak() && !world.is_paused && world.program->overtake_us >= 0 &&
                        world.calls == 1 && sim_is_asleep(world.service.coroutine) &&
                        sim_is_asleep(world.factory[0].server) && world.program->pools == 1 &&
                        !world.program->has_blocking;
        bool was_paused = world.is_paused && b->pool == 0;
        unsigned pauses = world.pauses;
        bool was_tagged;
        lido_lease lease;
        int rc;

        if (b->holds == HELD)
                return;
        sim_alone();
        idle_words(pool_of(b), before);
        sim_together();
        rc = lido_try_acquire_at(pool_of(b), &lease, "world");
        sim_note("%s: try says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (rc == LIDO_OK) {
                if (was_paused && pauses == world.pauses && !sim_is_weak())
                        sim_fail("an object is lent while the pool is paused");
                was_tagged = b->is_tagged;
                b->is_tagged = false; /* a try asks on nobody's behalf */
                borrow_got(b, b->pool, lease);
                b->is_tagged = was_tagged;
                return;
        }
        if (rc == LIDO_EEXHAUSTED && is_exact && !world.is_paused) {
                sim_alone();
                idle_words(pool_of(b), after);
                sim_together();
                for (uint32_t i = 0; i < CHUNK_SLOTS; i++)
                        if (before[i] && before[i] == after[i])
                                sim_fail("a try finds nothing, though slot %u was idle all the time", i);
        }
        if (rc != LIDO_EEXHAUSTED && rc != LIDO_EPAUSED && !borrow_is_expected(rc))
                sim_fail("try says %s", lido_err_name(rc));
}

static bool is_misuse(int rc)
{
        return rc == LIDO_EDOUBLE || rc == LIDO_ESTALE || rc == LIDO_EREVOKED;
}

bool borrow_is_shared(const struct held *held)
{
        return world.is_shared && held->lease.slot == world.shared.lease.slot &&
               held->lease.generation == world.shared.lease.generation;
}

/* Before a lease ends: afterwards the object may be anybody's. A shared one may have been ended by another.
 */
static void let_go(struct borrower *b, const struct held *held)
{
        if (!borrow_is_shared(held))
                factory_returned(held->object, b->coroutine);
        else if (held->object->is_contested)
                held->object->holder = NOBODY;
}

/* The outcome of ending a lease that may have been shared. */
static void ended(struct borrower *b, const struct held *held, int rc)
{
        sim_note("%s: release says %s", sim_name(b->coroutine), lido_err_name(rc));
        b->last = *held;
        if (borrow_is_shared(held)) {
                world.shared_returns += rc == LIDO_OK;
                if (rc != LIDO_OK && !is_misuse(rc))
                        sim_fail("release says %s", lido_err_name(rc));
                return;
        }
        if (rc != (held->is_revoked ? LIDO_EREVOKED : LIDO_OK))
                sim_fail("release says %s", lido_err_name(rc));
        if (lido_object(held->lease) != NULL)
                sim_fail("a lease that has ended is still valid");
}

void borrow_end(struct borrower *b, int op)
{
        struct held held;
        void *object;
        int rc;

        if (b->holds == 0)
                return;
        held = b->held[--b->holds];
        law_limits();
        if (!borrow_is_shared(&held) && !held.is_revoked && lido_object(held.lease) != held.object)
                sim_fail("a lease that is held is not valid");
        let_go(b, &held);
        if (op == OP_DISCARD) {
                rc = lido_discard_at(held.lease, "world");
        } else if (op == OP_DETACH) {
                /* the factory forgets it at once, the pool a little later */
                held.factory->alive--;
                held.factory->detaching++;
                rc = lido_detach_at(held.lease, &object, "world");
                held.factory->detaching--;
                if (rc == LIDO_OK) {
                        if (object != held.object)
                                sim_fail("what is detached is another object");
                        held.object->state = OBJECT_DETACHED;
                } else {
                        held.factory->alive++; /* stolen before, or revoked */
                }
        } else {
                rc = lido_release_at(held.lease, "world");
        }
        ended(b, &held, rc);
}

/* ---- the operations --------------------------------------------------------------------------------------
 */

void borrow_release_stale(struct borrower *b)
{
        int rc;

        if (!b->last.object)
                return;
        rc = lido_release_at(b->last.lease, "again");
        sim_note("%s: second release says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (!is_misuse(rc) && !borrow_is_shared(&b->last))
                sim_fail("a second release says %s", lido_err_name(rc));
        if (rc == LIDO_OK)
                world.shared_returns++;
}

void borrow_share(struct borrower *b)
{
        if (world.is_shared || b->holds == 0 || b->held[b->holds - 1].is_revoked)
                return;
        world.is_shared = true;
        world.shared = b->held[b->holds - 1];
        world.shared.object->is_contested = true;
        sim_publish(&world.shared);
}

void borrow_steal(struct borrower *b)
{
        struct held held = world.shared;
        int rc;

        if (!world.is_shared)
                return;
        sim_consult(&world.shared);
        let_go(b, &held);
        rc = lido_release_at(held.lease, "thief");
        sim_note("%s: stealing says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (rc != LIDO_OK && !is_misuse(rc))
                sim_fail("a release by a second thread says %s", lido_err_name(rc));
        world.shared_returns += rc == LIDO_OK;
}
