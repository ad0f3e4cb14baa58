/* worker/queue.h - the jobs that wait for a worker: three classes, oldest first, and who is next.
 *
 * A higher class goes first, but overtakes a waiting lower one at most `overtake_jobs` times in a row; so a job at
 * the head of its class is served after a bounded number of others, however many keep coming. No clock is read for it.
 * The overload rule (CoDel) does need times; without it no job is stamped.
 * Everything here is guarded by the executor's lock; `count` may be read without it, as a hint.
 */
#ifndef LIDO_WORKER_QUEUE_H
#define LIDO_WORKER_QUEUE_H

#include "worker/job.h"

enum { QUEUE_CLASSES = 3, QUEUE_NORMAL = 1 };

/* The first line is all that push and pop touch. */
struct queue {
        struct list class[QUEUE_CLASSES]; /* 0 is the highest */
        uint16_t overtaken[QUEUE_CLASSES]; /* jobs taken from higher ones since class N was last served or empty */
        uint16_t filled;                   /* bit N: class N is not empty */
        _Atomic uint32_t count;            /* jobs in all classes; written under the lock */
        uint32_t peak;

        uint32_t overtake_jobs; /* constant */
        bool is_standing;       /* overload: the last interval saw no wait below the target */
        uint64_t target_ns;     /* constant; CLOCK_NEVER: no overload rule */
        uint64_t interval_ns;   /* constant */
        uint64_t interval_end_ns;
        uint64_t least_ns; /* the shortest wait seen in this interval */
} __attribute__((aligned(64)));

void queue_init(struct queue *queue, uint32_t overtake_jobs, uint64_t target_ns, uint64_t interval_ns);

static inline bool queue_keeps_time(const struct queue *queue)
{
        return queue->target_ns != UINT64_MAX;
}

static inline uint32_t queue_count(struct queue *queue)
{
        return load_relaxed(&queue->count);
}

unsigned queue_class_slow(const struct queue *queue, unsigned highest);
void queue_overtake_slow(struct queue *queue, unsigned class);

/* The priorities are normal, high, low, critical: classes 1, 0, 2 and 0. */
static inline unsigned queue_class_of(const struct job *job)
{
        return (0x0201u >> (4 * job->priority)) & 0xf;
}

/* May it be dropped for overload? */
static inline bool queue_may_drop(const struct job *job)
{
        return !(job->flags & LIDO_JOB_KEEP) && job->priority != LIDO_PRIORITY_CRITICAL;
}

/* Put a job in; its state is the caller's business. Hot: measured by the throughput workload of the worker
 * benches. */
static inline void queue_push(struct queue *queue, struct job *job)
{
        unsigned class = queue_class_of(job);
        uint32_t count = load_relaxed(&queue->count) + 1;

        list_push_back(&queue->class[class], &job->link);
        queue->filled |= (uint16_t)(1u << class);
        store_relaxed(&queue->count, count);
        if (count > queue->peak)
                queue->peak = count;
}

/* Put many of normal priority in, in their order; the list is empty then. */
void queue_adopt(struct queue *queue, struct list *jobs, uint32_t count);

/* Put a job back that has been taken out: it is the oldest of its class. */
void queue_push_front(struct queue *queue, struct job *job);

/* Take a job out, wherever it stands. */
static inline void queue_unlink(struct queue *queue, struct job *job)
{
        unsigned class = queue_class_of(job);

        list_unlink(&job->link);
        store_relaxed(&queue->count, load_relaxed(&queue->count) - 1);
        if (list_is_empty(&queue->class[class])) {
                queue->filled &= (uint16_t)~(1u << class);
                queue->overtaken[class] = 0;
        }
        if (queue->filled == 0)
                queue->least_ns = 0;
}

/* The job that is next; NULL when there is none. It is not taken out. */
static inline struct job *queue_peek(struct queue *queue)
{
        unsigned filled = queue->filled;
        unsigned class;

        if (filled == 0)
                return NULL;
        class = (unsigned)__builtin_ctz(filled);
        if (filled & (filled - 1))
                class = queue_class_slow(queue, class);
        return list_entry(queue->class[class].next, struct job, link);
}

/* Take the next one out; NULL when there is none. Hot: measured by the throughput workload of the worker benches. */
static inline struct job *queue_pop(struct queue *queue)
{
        struct job *job = queue_peek(queue);
        unsigned class;

        if (!job)
                return NULL;
        class = queue_class_of(job);
        queue->overtaken[class] = 0;
        if (queue->filled >> (class + 1))
                queue_overtake_slow(queue, class);
        queue_unlink(queue, job);
        return job;
}

/* The oldest of the lowest class that may be dropped; NULL when all are LIDO_JOB_KEEP. */
struct job *queue_victim(struct queue *queue);

/* Overload: note how long a job that was just popped has waited. */
void queue_note_wait(struct queue *queue, uint64_t waited_ns, uint64_t now_ns);

/* Overload: a job that has stood for too long; NULL when there is none. It is not taken out. */
struct job *queue_overdue(struct queue *queue, uint64_t now_ns);

/* Assert every invariant. */
void queue_check(struct queue *queue);

#endif
