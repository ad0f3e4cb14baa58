#include "keyed/keyed.h"

#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/sized.h"
#include "keeper/lifecycle.h"
#include "keeper/service.h"
#include "pool/options.h"

/* A key that ought to be forgotten was in use a moment ago: look again. */
#define RETRY_NS (10 * NS_PER_MS)

static struct keyed_entry *entry_of(struct table_entry *found)
{
        return found ? list_entry(found, struct keyed_entry, entry) : NULL;
}

/* The low bits of the hash choose the bucket, the high ones the shard. */
static struct shard *shard_of(struct lido_keyed *keyed, uint64_t hash)
{
        return &keyed->shard[hash >> 60 & (SHARDS - 1)];
}

static bool is_forked(struct lido_keyed *keyed)
{
        return service_is_forked(keyed->service);
}

/* ---- its end ---------------------------------------------------------------------------------------------- */

static void let_go(struct lido_keyed *keyed)
{
        if (sub_acq_rel(&keyed->holds, 1) > 1)
                return;
        if (keyed->end)
                keyed->end(keyed->factory.context);
        if (keyed->owns_budget)
                lido_budget_free(keyed->budget);
        for (unsigned i = 0; i < SHARDS; i++) {
                table_fini(&keyed->shard[i].table);
                mutex_fini(&keyed->shard[i].lock);
        }
        mem_free(keyed);
}

static void gone(struct pool_owner *owner, struct lido_pool *pool)
{
        struct keyed_entry *entry = (struct keyed_entry *)owner;
        struct lido_keyed *keyed = entry->keyed;

        (void)pool;
        if (entry->is_spare)
                sub_relaxed(&keyed->spare, 1);
        mem_free(entry);
        let_go(keyed);
}

/* ---- forgetting ------------------------------------------------------------------------------------------- */

/* Has the pool nothing to lose but idle objects, and nobody in line? */
static bool is_unused(struct lido_pool *pool)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        return !(load_seq_cst(&pool->gate) & GATE_COUNT) &&
               load_seq_cst(&pool->live) == count[SLOT_IDLE] + count[SLOT_RESTED];
}

static bool leave_table(struct keyed_entry *entry)
{
        struct shard *shard = shard_of(entry->keyed, entry->entry.hash);
        bool leaves;

        mutex_lock(&shard->lock);
        leaves = entry->is_known && !shard->is_closed && load_seq_cst(&entry->pool->guests) == 0 && is_unused(entry->pool);
        if (leaves) {
                table_remove(&shard->table, &entry->entry);
                entry->is_known = false;
                sub_relaxed(&entry->keyed->keys, 1);
        }
        mutex_unlock(&shard->lock);
        return leaves;
}

static void count_spare(struct keyed_entry *entry, bool is_spare)
{
        if (entry->is_spare == is_spare)
                return;
        entry->is_spare = is_spare;
        if (is_spare)
                add_relaxed(&entry->keyed->spare, 1);
        else
                sub_relaxed(&entry->keyed->spare, 1);
}

static uint64_t tended(struct pool_owner *owner, struct lido_pool *pool, uint64_t now)
{
        struct keyed_entry *entry = (struct keyed_entry *)owner;
        struct lido_keyed *keyed = entry->keyed;
        bool is_empty = load_seq_cst(&pool->live) == 0 && !(load_seq_cst(&pool->gate) & GATE_COUNT);
        uint64_t due = clock_after_ms(load_relaxed(&pool->used_ns), keyed->forget_after_ms);
        bool is_beyond;

        count_spare(entry, is_empty);
        is_beyond = is_empty && load_relaxed(&keyed->spare) > keyed->spare_keys;
        if (!is_empty && (pool_options(pool)->min == 0 || !is_unused(pool)))
                return CLOCK_NEVER;
        if (now < due && !is_beyond)
                return due;
        if (!leave_table(entry))
                return now + RETRY_NS;
        add_relaxed(&keyed->forgotten, 1);
        lido_pool_free(pool);
        return CLOCK_NEVER;
}

/* ---- finding and making ----------------------------------------------------------------------------------- */

static struct keyed_entry *entry_new(struct lido_keyed *keyed, const struct table_entry *like)
{
        struct keyed_entry *entry = mem_zalloc(sizeof *entry + like->key_size);

        if (!entry)
                return NULL;
        if (like->key_size > 0)
                memcpy(entry->key, like->key, like->key_size);
        entry->entry.hash = like->hash;
        entry->entry.key = entry->owner.key = entry->key;
        entry->entry.key_size = entry->owner.key_size = like->key_size;
        entry->owner.tended = tended;
        entry->owner.gone = gone;
        entry->keyed = keyed;
        list_init(&entry->entry.link);
        return entry;
}

static int make(struct lido_keyed *keyed, const struct table_entry *like, struct keyed_entry **ret_entry)
{
        struct keyed_entry *entry = entry_new(keyed, like);
        struct pool_plan plan = { &keyed->factory, &keyed->each, &entry->owner };
        int rc;

        if (!entry)
                return LIDO_ENOMEM;
        add_relaxed(&keyed->holds, 1);
        rc = lifecycle_open(&entry->pool, keyed->service, &plan);
        if (rc == LIDO_ECLOSED)
                return rc; /* `gone` was called */
        if (rc != LIDO_OK) {
                mem_free(entry);
                let_go(keyed);
                return rc;
        }
        *ret_entry = entry;
        return LIDO_OK;
}

/* The caller becomes a guest. */
static void visit(struct keyed_entry *entry, uint64_t now)
{
        pool_enter(entry->pool);
        store_relaxed(&entry->pool->used_ns, now);
}

/* Returns: LIDO_OK and the entry, or NULL if the key is not known; LIDO_ECLOSED. */
static int find(struct lido_keyed *keyed, const struct table_entry *like, uint64_t now, struct keyed_entry **ret_entry)
{
        struct shard *shard = shard_of(keyed, like->hash);
        int rc = LIDO_ECLOSED;

        mutex_lock(&shard->lock);
        if (!shard->is_closed) {
                *ret_entry = entry_of(table_find(&shard->table, like));
                if (*ret_entry)
                        visit(*ret_entry, now);
                rc = LIDO_OK;
        }
        mutex_unlock(&shard->lock);
        return rc;
}

/* Make the new entry known, unless another thread was first: then that one is visited, and ours goes. */
static int insert(struct lido_keyed *keyed, struct keyed_entry *ours, uint64_t now, struct keyed_entry **ret_entry)
{
        struct shard *shard = shard_of(keyed, ours->entry.hash);
        struct keyed_entry *entry = NULL;
        int rc = LIDO_ECLOSED;

        mutex_lock(&shard->lock);
        if (!shard->is_closed) {
                entry = entry_of(table_find(&shard->table, &ours->entry));
                rc = entry ? LIDO_OK : table_add(&shard->table, &ours->entry);
                if (!entry && rc == LIDO_OK) {
                        entry = ours;
                        entry->is_known = true;
                        add_relaxed(&keyed->keys, 1);
                        add_relaxed(&keyed->seen, 1);
                }
                if (entry)
                        visit(entry, now);
        }
        mutex_unlock(&shard->lock);
        if (entry != ours)
                lido_pool_free(ours->pool);
        *ret_entry = entry;
        return rc;
}

/* Find the key's entry or make it, and be a guest of its pool. */
static int enter(struct lido_keyed *keyed, const struct lido_wish *wish, struct keyed_entry **ret_entry)
{
        struct table_entry like = { .key = wish->key, .key_size = wish->key_size };
        struct keyed_entry *entry;
        uint64_t now;
        int rc;

        if (!keyed || wish->key_size > LIDO_KEY_MOST || (!wish->key && wish->key_size > 0))
                return LIDO_EINVAL;
        if (is_forked(keyed))
                return LIDO_EFORKED;
        like.hash = hash_bytes(&keyed->secret, wish->key, wish->key_size);
        now = clock_now_ns();
        rc = find(keyed, &like, now, &entry);
        if (rc == LIDO_OK && !entry) {
                rc = make(keyed, &like, &entry);
                if (rc == LIDO_OK)
                        rc = insert(keyed, entry, now, &entry);
        }
        if (rc == LIDO_OK)
                *ret_entry = entry;
        return rc;
}

int lido_keyed_acquire(struct lido_keyed *keyed, struct lido_wish wish, lido_lease *ret_lease)
{
        struct keyed_entry *entry;
        int rc = enter(keyed, &wish, &entry);
        struct lido_pool *pool;

        if (rc != LIDO_OK)
                return rc;
        pool = entry->pool;
        rc = lido_acquire_at(pool, wish.timeout_ms, ret_lease, wish.site);
        pool_leave(pool);
        return rc;
}

int lido_keyed_acquire_async(struct lido_keyed *keyed, struct lido_wish wish, struct lido_request *request,
                             lido_acquired_cb callback)
{
        struct keyed_entry *entry;
        int rc = enter(keyed, &wish, &entry);
        struct lido_pool *pool;

        if (rc != LIDO_OK)
                return rc;
        pool = entry->pool;
        rc = lido_acquire_async_at(pool, request, wish.timeout_ms, callback, wish.site);
        pool_leave(pool);
        return rc;
}

int lido_keyed_acquire_notify(struct lido_keyed *keyed, struct lido_wish wish, struct lido_request *request,
                              lido_acquired_cb callback)
{
        struct keyed_entry *entry;
        int rc = enter(keyed, &wish, &entry);
        struct lido_pool *pool;

        if (rc != LIDO_OK)
                return rc;
        pool = entry->pool;
        rc = lido_acquire_notify_at(pool, request, wish.timeout_ms, callback, wish.site);
        pool_leave(pool);
        return rc;
}

/* ---- keys of ops and leases ------------------------------------------------------------------------------- */

static const void *key_of(struct lido_pool *pool, size_t *ret_size)
{
        struct pool_owner *owner = pool ? load_relaxed(&pool->owner) : NULL;

        if (!owner || !ret_size)
                return NULL;
        *ret_size = owner->key_size;
        return owner->key;
}

const void *lido_op_key(lido_op op, size_t *ret_size)
{
        if (lido_op_deadline_ns(op) == 0)
                return NULL;
        return key_of(load_relaxed(&op.slot->pool), ret_size);
}

const void *lido_lease_key(lido_lease lease, size_t *ret_size)
{
        return key_of(lido_lease_pool(lease), ret_size);
}

/* ---- the life of all -------------------------------------------------------------------------------------- */

/* Options of each pool; with the budget of all. */
static int take_options(struct lido_keyed *keyed, const struct lido_keyed_options *theirs)
{
        struct lido_keyed_options ours;
        int rc = sized_take(&ours, sizeof ours, theirs);

        if (rc != LIDO_OK)
                return rc;
        rc = options_take(&keyed->each, ours.each, NULL);
        if (rc != LIDO_OK)
                return rc;
        if (keyed->each.start != LIDO_START_LAZY || keyed->each.budget || (ours.budget && ours.total != 0) ||
            ours.forget_after_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        keyed->spare_keys = ours.spare_keys ? ours.spare_keys : 1000;
        keyed->forget_after_ms = ours.forget_after_ms ? ours.forget_after_ms : 60000;
        keyed->budget = ours.budget;
        keyed->owns_budget = !ours.budget;
        if (!ours.budget)
                rc = lido_budget_new(&keyed->budget, ours.total ? ours.total : 100);
        keyed->each.budget = keyed->budget;
        return rc;
}

int lido_keyed_open(struct lido_keyed **ret_keyed, struct lido_service *service, const struct lido_factory *factory,
                    const struct lido_keyed_options *options)
{
        struct lido_keyed *keyed;
        int rc;

        if (!ret_keyed || !service || !factory)
                return LIDO_EINVAL;
        if (service_is_forked(service))
                return LIDO_EFORKED;
        keyed = mem_zalloc_aligned(64, sizeof *keyed);
        if (!keyed)
                return LIDO_ENOMEM;
        rc = sized_take(&keyed->factory, sizeof keyed->factory, factory);
        if (rc == LIDO_OK && (!keyed->factory.open || !keyed->factory.close))
                rc = LIDO_EINVAL;
        if (rc == LIDO_OK)
                rc = take_options(keyed, options);
        if (rc == LIDO_OK && keyed->each.open_inline &&
            (keyed->factory.watch || (keyed->factory.flags & LIDO_FACTORY_BLOCKING)))
                rc = LIDO_EINVAL;
        if (rc != LIDO_OK) {
                if (keyed->owns_budget)
                        lido_budget_free(keyed->budget);
                mem_free(keyed);
                return rc;
        }
        for (unsigned i = 0; i < SHARDS; i++)
                mutex_init(&keyed->shard[i].lock);
        keyed->secret = hash_secret_new();
        keyed->service = service;
        keyed->end = keyed->factory.end;
        keyed->factory.end = NULL;
        store_relaxed(&keyed->holds, 1);
        *ret_keyed = keyed;
        return LIDO_OK;
}

/* From now on the table only loses what is freed by lido_keyed_free. */
static void shut(struct shard *shard)
{
        mutex_lock(&shard->lock);
        shard->is_closed = true;
        mutex_unlock(&shard->lock);
}

int lido_keyed_close(struct lido_keyed *keyed, int64_t timeout_ms)
{
        uint64_t deadline_ns;

        if (!keyed || timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (is_forked(keyed))
                return LIDO_EFORKED;
        deadline_ns = clock_after_ms(clock_now_ns(), timeout_ms);
        for (unsigned i = 0; i < SHARDS; i++) {
                shut(&keyed->shard[i]);
                table_for_each (found, &keyed->shard[i].table)
                        pool_close(entry_of(found)->pool, deadline_ns);
        }
        return LIDO_OK;
}

int lido_keyed_drain(struct lido_keyed *keyed, int64_t timeout_ms)
{
        uint64_t deadline_ns = clock_after_ms(clock_now_ns(), timeout_ms), now;
        int rc;

        if (!keyed || timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (is_forked(keyed))
                return LIDO_EFORKED;
        for (unsigned i = 0; i < SHARDS; i++) {
                bool is_closed;

                mutex_lock(&keyed->shard[i].lock);
                is_closed = keyed->shard[i].is_closed;
                mutex_unlock(&keyed->shard[i].lock);
                if (!is_closed)
                        return LIDO_EINVAL;
                table_for_each (found, &keyed->shard[i].table) {
                        now = clock_now_ns();
                        rc = lido_pool_drain(entry_of(found)->pool,
                                             deadline_ns == CLOCK_NEVER ? LIDO_NEVER
                                             : deadline_ns > now        ? (int64_t)((deadline_ns - now) / NS_PER_MS) + 1
                                                                        : 0);
                        if (rc != LIDO_OK)
                                return rc;
                }
        }
        return LIDO_OK;
}

void lido_keyed_free(struct lido_keyed *keyed)
{
        struct table_entry *found;

        if (!keyed || is_forked(keyed))
                return;
        for (unsigned i = 0; i < SHARDS; i++) {
                shut(&keyed->shard[i]);
                while ((found = table_any(&keyed->shard[i].table)) != NULL) {
                        table_remove(&keyed->shard[i].table, found);
                        lido_pool_free(entry_of(found)->pool);
                }
        }
        let_go(keyed);
}

/* ---- stats ------------------------------------------------------------------------------------------------ */

int lido_keyed_stats(struct lido_keyed *keyed, struct lido_keyed_stats *stats)
{
        struct lido_keyed_stats ours = LIDO_KEYED_STATS_INIT;
        size_t room;

        if (!keyed || !stats || stats->size < sizeof stats->size)
                return LIDO_EINVAL;
        if (is_forked(keyed))
                return LIDO_EFORKED;
        room = sized_room(stats->size, sizeof ours);
        ours.keys = load_relaxed(&keyed->keys);
        ours.spare = load_relaxed(&keyed->spare);
        ours.seen = load_relaxed(&keyed->seen);
        ours.forgotten = load_relaxed(&keyed->forgotten);
        ours.budget.size = sizeof ours.budget;
        lido_budget_stats(keyed->budget, &ours.budget);
        ours.size = room;
        memcpy(stats, &ours, room);
        return LIDO_OK;
}

int lido_keyed_key_stats(struct lido_keyed *keyed, const void *key, size_t key_size, struct lido_stats *stats)
{
        struct table_entry like = { .key = key, .key_size = key_size };
        struct keyed_entry *entry;
        struct shard *shard;
        size_t size;
        int rc = LIDO_OK;

        if (!keyed || !stats || stats->size < sizeof stats->size || key_size > LIDO_KEY_MOST || (!key && key_size > 0))
                return LIDO_EINVAL;
        if (is_forked(keyed))
                return LIDO_EFORKED;
        like.hash = hash_bytes(&keyed->secret, key, key_size);
        shard = shard_of(keyed, like.hash);
        mutex_lock(&shard->lock);
        rc = shard->is_closed ? LIDO_ECLOSED : LIDO_OK;
        entry = rc == LIDO_OK ? entry_of(table_find(&shard->table, &like)) : NULL;
        if (entry)
                pool_enter(entry->pool);
        mutex_unlock(&shard->lock);
        if (entry) {
                rc = lido_pool_stats(entry->pool, stats);
                pool_leave(entry->pool);
        } else if (rc == LIDO_OK) {
                size = sized_room(stats->size, sizeof *stats);
                memset(stats, 0, size);
                stats->size = size;
        }
        return rc;
}

void keyed_check(struct lido_keyed *keyed)
{
        uint32_t keys = 0;

        for (unsigned i = 0; i < SHARDS; i++) {
                struct shard *shard = &keyed->shard[i];

                mutex_lock(&shard->lock);
                table_for_each (found, &shard->table) {
                        lido_assert(entry_of(found)->is_known);
                        lido_assert(found->hash == hash_bytes(&keyed->secret, found->key, found->key_size));
                        lido_assert(shard_of(keyed, found->hash) == shard);
                        keys++;
                }
                mutex_unlock(&shard->lock);
        }
        lido_assert(load_relaxed(&keyed->keys) == keys);
        lido_assert(load_relaxed(&keyed->spare) <= load_relaxed(&keyed->holds));
}
