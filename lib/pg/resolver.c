#include "pg/resolver.h"

#include <string.h>
#include <uv.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/mutex.h"
#include "base/park.h"
#include "base/thread.h"
#include "pg/failure.h"

#define THREADS_MOST 4     /* a name that hangs must not stand in the way of the others */
#define IDLE_MS 5000       /* a thread without work ends */
#define FAILURE_MS 1000    /* a failure is believed for so long */
#define DEAD_MS 10000      /* an address that did not answer is tried last for so long */

/* One name. It is there until the resolver ends: there are as many as hosts in a list. */
struct entry {
        struct list link;    /* guarded by lock: of `entries` */
        struct list queued;  /* guarded by lock: of `queue`, or unlinked */
        struct list waiting; /* guarded by lock: of struct news */
        char *host;          /* constant */
        bool is_pending;     /* guarded by lock: in the queue, or being looked up */
        uint64_t known_ns;   /* guarded by lock: when it was last looked up; 0: never */
        uint64_t fresh_ns;   /* guarded by lock: until when that counts */
        struct addresses addresses; /* guarded by lock; empty: `error` says why */
        uint64_t dead_ns[ADDRESSES_MAX]; /* guarded by lock: until when it is tried last */
        struct lido_error error;
};

/* A thread, detached: nobody knows how long it will be. */
struct lookup_thread {
        struct thread thread;
        struct resolver *resolver; /* a share of it */
};

struct resolver {
        int64_t ttl_ms;  /* constant */
        uv_loop_t *loop; /* constant; NULL: there are threads */
        struct mutex lock;
        struct list entries;    /* guarded by lock */
        struct list queue;      /* guarded by lock: oldest first */
        unsigned thread_count;  /* guarded by lock */
        unsigned idle_count;    /* guarded by lock: those that wait for work, or are on their way to it */
        unsigned queue_length;  /* guarded by lock */
        bool is_ending;         /* guarded by lock */
        _Atomic uint32_t users; /* atomic: the owner, each thread */
        _Atomic uint32_t bell;  /* atomic: changed when there is work, slept on by idle threads */
        _Atomic uint32_t left;  /* atomic: changed when a thread has ended, slept on by resolver_free */
};

static void unref(struct resolver *resolver)
{
        if (sub_acq_rel(&resolver->users, 1) != 1)
                return;
        list_for_each_safe(it, &resolver->entries) {
                struct entry *entry = list_entry(it, struct entry, link);

                mem_free(entry->host);
                mem_free(entry);
        }
        mutex_fini(&resolver->lock);
        mem_free(resolver);
}

struct resolver *resolver_new(int64_t ttl_ms, struct uv_loop_s *loop)
{
        struct resolver *resolver = mem_zalloc(sizeof *resolver);

        if (!resolver)
                return NULL;
        resolver->ttl_ms = ttl_ms;
        resolver->loop = loop;
        mutex_init(&resolver->lock);
        list_init(&resolver->entries);
        list_init(&resolver->queue);
        store_relaxed(&resolver->users, 1);
        return resolver;
}

static void ring(_Atomic uint32_t *bell)
{
        add_acq_rel(bell, 1u);
        park_wake(bell, INT32_MAX);
}

void resolver_free(struct resolver *resolver)
{
        if (!resolver)
                return;
        mutex_lock(&resolver->lock);
        resolver->is_ending = true;
        mutex_unlock(&resolver->lock);
        ring(&resolver->bell);
        for (;;) {
                uint32_t seen = load_acquire(&resolver->left);

                mutex_lock(&resolver->lock);
                bool is_over = resolver->idle_count == 0;
                mutex_unlock(&resolver->lock);
                if (is_over)
                        break;
                park_wait(&resolver->left, seen, CLOCK_NEVER);
        }
        unref(resolver);
}

/* ---- the threads ----------------------------------------------------------------------------------------- */

/* Wait for a name. Returns: NULL when the thread is to end, and is not counted any more. */
static struct entry *wait_for_entry(struct resolver *resolver)
{
        uint64_t give_up = clock_after_ms(clock_now_ns(), IDLE_MS);

        for (;;) {
                uint32_t heard = load_acquire(&resolver->bell);
                struct entry *entry = NULL;

                mutex_lock(&resolver->lock);
                struct list *first = list_front(&resolver->queue);
                bool is_over = resolver->is_ending || (!first && clock_now_ns() >= give_up);
                if (!is_over && first) {
                        entry = list_entry(first, struct entry, queued);
                        list_unlink(first);
                        resolver->queue_length--;
                }
                if (is_over)
                        resolver->thread_count--;
                if (is_over || entry)
                        resolver->idle_count--;
                mutex_unlock(&resolver->lock);
                if (is_over || entry)
                        return entry;
                park_wait(&resolver->bell, heard, give_up);
        }
}

/* The new list, with what is known of those addresses that were in the old one. */
static void take_addresses(struct entry *entry, const struct addresses *found)
{
        uint64_t dead_ns[ADDRESSES_MAX] = { 0 };

        for (unsigned i = 0; i < found->count; i++)
                for (unsigned j = 0; j < entry->addresses.count; j++)
                        if (strcmp(found->text[i], entry->addresses.text[j]) == 0)
                                dead_ns[i] = entry->dead_ns[j];
        memcpy(entry->dead_ns, dead_ns, sizeof dead_ns);
        entry->addresses = *found;
}

/* It was looked up. With the lock held. */
static void take_result(struct resolver *resolver, struct entry *entry, const struct addresses *found,
                        const struct lido_error *error) REQUIRES(resolver->lock)
{
        uint64_t now = clock_now_ns();

        entry->is_pending = false;
        entry->known_ns = now;
        entry->fresh_ns = clock_after_ms(now, resolver->ttl_ms);
        if (found->count > 0) {
                take_addresses(entry, found);
        } else {
                entry->fresh_ns = clock_min(entry->fresh_ns, clock_after_ms(now, FAILURE_MS));
                entry->error = *error;
        }
        news_tell(&entry->waiting);
}

static void look_up(struct resolver *resolver, struct entry *entry)
{
        struct addresses found;
        struct lido_error error;

        addresses_resolve(&found, entry->host, &error);
        mutex_lock(&resolver->lock);
        take_result(resolver, entry, &found, &error);
        resolver->idle_count++;
        mutex_unlock(&resolver->lock);
}

static void run(void *self_pointer)
{
        struct lookup_thread *self = self_pointer;
        struct resolver *resolver = self->resolver;
        struct entry *entry;

        while ((entry = wait_for_entry(resolver)) != NULL)
                look_up(resolver, entry);
        mem_free(self);
        ring(&resolver->left);
        unref(resolver);
}

static int start_thread(struct resolver *resolver)
{
        struct lookup_thread *self = mem_zalloc(sizeof *self);

        if (!self)
                return LIDO_ENOMEM;
        self->resolver = resolver;
        add_relaxed(&resolver->users, 1u);

        mutex_lock(&resolver->lock); /* the thread's first act is to lock, so it ends and frees itself only after this */
        int rc = thread_start(&self->thread, "lido-resolve", 0, run, self);
        if (rc == LIDO_OK)
                pthread_detach(self->thread.native);
        mutex_unlock(&resolver->lock);
        if (rc == LIDO_OK)
                return LIDO_OK;
        sub_acq_rel(&resolver->users, 1u);
        mem_free(self);
        return rc;
}

/* ---- without threads ------------------------------------------------------------------------------------- */

struct lookup_request {
        uv_getaddrinfo_t request;
        struct resolver *resolver; /* a share of it */
        struct entry *entry;
};

static void on_looked_up(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
        struct lookup_request *self = request->data;
        struct resolver *resolver = self->resolver;
        struct addresses found;
        struct lido_error error;

        addresses_take(&found, list);
        addresses_explain(self->entry->host, status ? uv_strerror(status) : "it has none", status, &error);
        mutex_lock(&resolver->lock);
        take_result(resolver, self->entry, &found, &error);
        mutex_unlock(&resolver->lock);
        if (list)
                uv_freeaddrinfo(list);
        mem_free(self);
        unref(resolver);
}

/* Returns: LIDO_OK; else the entry is not looked up. */
static int start_request(struct resolver *resolver, struct entry *entry)
{
        const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
        struct lookup_request *self = mem_zalloc(sizeof *self);

        if (!self)
                return LIDO_ENOMEM;
        self->request.data = self;
        self->resolver = resolver;
        self->entry = entry;
        add_relaxed(&resolver->users, 1u);
        if (uv_getaddrinfo(resolver->loop, &self->request, on_looked_up, entry->host, NULL, &hints) == 0)
                return LIDO_OK;
        sub_acq_rel(&resolver->users, 1u);
        mem_free(self);
        return LIDO_ELOOP;
}

/* ---- the face -------------------------------------------------------------------------------------------- */

static struct entry *find(struct resolver *resolver, const char *host) REQUIRES(resolver->lock)
{
        list_for_each(it, &resolver->entries)
                if (strcmp(list_entry(it, struct entry, link)->host, host) == 0)
                        return list_entry(it, struct entry, link);
        return NULL;
}

static struct entry *find_or_add(struct resolver *resolver, const char *host) REQUIRES(resolver->lock)
{
        struct entry *entry = find(resolver, host);

        if (entry)
                return entry;
        entry = mem_zalloc(sizeof *entry);
        if (!entry)
                return NULL;
        entry->host = mem_strdup(host);
        if (!entry->host) {
                mem_free(entry);
                return NULL;
        }
        list_init(&entry->link);
        list_init(&entry->queued);
        list_init(&entry->waiting);
        list_push_back(&resolver->entries, &entry->link);
        return entry;
}

/* Those that answer first, each group in its old order. */
static void give(const struct entry *entry, uint64_t now, struct addresses *ret_addresses)
{
        ret_addresses->count = 0;
        for (int is_dead = 0; is_dead <= 1; is_dead++)
                for (unsigned i = 0; i < entry->addresses.count; i++)
                        if ((entry->dead_ns[i] > now) == (is_dead == 1))
                                strcpy(ret_addresses->text[ret_addresses->count++], entry->addresses.text[i]);
}

/* Have it looked up. Returns: true when a thread is to be started for it, which is counted already. */
static bool enqueue(struct resolver *resolver, struct entry *entry) REQUIRES(resolver->lock)
{
        entry->is_pending = true;
        if (resolver->loop)
                return true;
        list_push_back(&resolver->queue, &entry->queued);
        resolver->queue_length++;
        if (resolver->queue_length <= resolver->idle_count || resolver->thread_count >= THREADS_MOST)
                return false;
        resolver->thread_count++;
        resolver->idle_count++;
        return true;
}

/* No thread came. When there is no other, nobody will look it up. Returns: LIDO_OK when somebody will all the same. */
static int do_without_thread(struct resolver *resolver, struct entry *entry, struct news *news, int rc)
{
        mutex_lock(&resolver->lock);
        resolver->thread_count--;
        resolver->idle_count--;
        if (resolver->thread_count > 0 || !list_is_linked(&entry->queued)) {
                rc = LIDO_OK;
        } else {
                list_unlink(&news->link);
                list_unlink(&entry->queued);
                resolver->queue_length--;
                entry->is_pending = false;
                news_tell(&entry->waiting); /* others who asked meanwhile ask again, and try to start one too */
        }
        mutex_unlock(&resolver->lock);
        ring(&resolver->left);
        return rc;
}

int resolver_ask(struct resolver *resolver, const char *host, struct news *news, struct addresses *ret_addresses,
                 struct lido_error *error)
{
        uint64_t now = clock_now_ns();
        bool must_start = false, is_answer;
        int rc = LIDO_ENOMEM;

        if (news_expect(news) != 0)
                goto fail;
        mutex_lock(&resolver->lock);
        list_unlink(&news->link);
        struct entry *entry = find_or_add(resolver, host);
        is_answer = entry && entry->known_ns != 0 && (now < entry->fresh_ns || entry->known_ns >= news->since_ns);
        if (is_answer) {
                give(entry, now, ret_addresses);
                rc = ret_addresses->count > 0 ? LIDO_OK : entry->error.code;
                if (rc != LIDO_OK)
                        *error = entry->error;
        } else if (entry) {
                rc = LIDO_EBUSY;
                list_push_back(&entry->waiting, &news->link);
                must_start = !entry->is_pending && enqueue(resolver, entry);
        }
        mutex_unlock(&resolver->lock);
        if (!entry)
                goto fail;
        if (rc != LIDO_EBUSY)
                return rc;
        if (!must_start) {
                ring(&resolver->bell);
                return LIDO_EBUSY;
        }
        if (resolver->loop) {
                rc = start_request(resolver, entry);
                if (rc == LIDO_OK)
                        return LIDO_EBUSY;
                mutex_lock(&resolver->lock);
                entry->is_pending = false;
                list_unlink(&news->link);
                mutex_unlock(&resolver->lock);
                goto fail;
        }
        ring(&resolver->bell);
        rc = start_thread(resolver);
        if (rc == LIDO_OK || do_without_thread(resolver, entry, news, rc) == LIDO_OK)
                return LIDO_EBUSY;
fail:
        failure_set(error, rc, LIDO_FAILURE_TRANSIENT,
                    rc == LIDO_ENOMEM ? "out of memory" : "nothing to look up a host name on");
        return rc;
}

void resolver_forget(struct resolver *resolver, struct news *news)
{
        mutex_lock(&resolver->lock);
        list_unlink(&news->link);
        mutex_unlock(&resolver->lock);
}

void resolver_note(struct resolver *resolver, const char *host, const char *address, bool is_alive)
{
        uint64_t until_ns = is_alive ? 0 : clock_after_ms(clock_now_ns(), DEAD_MS);

        mutex_lock(&resolver->lock);
        struct entry *entry = find(resolver, host);
        for (unsigned i = 0; entry && i < entry->addresses.count; i++)
                if (strcmp(entry->addresses.text[i], address) == 0)
                        entry->dead_ns[i] = until_ns;
        mutex_unlock(&resolver->lock);
}
