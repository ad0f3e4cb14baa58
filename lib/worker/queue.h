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

enum { QUEUE_CLASSES = 3 };

struct queue {
        struct list class[QUEUE_CLASSES]; /* 0 is the highest */
        uint32_t filled;                  /* bit N: class N is not empty */
        uint32_t overtaken[QUEUE_CLASSES]; /* jobs taken from higher ones since class N was last served or empty */
        uint32_t overtake_jobs;            /* constant */
        _Atomic uint32_t count;            /* jobs in all classes; written under the lock */
        uint32_t peak;
        /* overload; target_ns is CLOCK_NEVER when there is no such rule */
        uint64_t target_ns, interval_ns; /* constant */
        uint64_t interval_end_ns;
        uint64_t least_ns; /* the shortest wait seen in this interval */
        bool is_standing;  /* the last interval saw no wait below the target */
};

void queue_init(struct queue *queue, uint32_t overtake_jobs, uint64_t target_ns, uint64_t interval_ns);

static inline bool queue_keeps_time(const struct queue *queue)
{
        return queue->target_ns != UINT64_MAX;
}

static inline uint32_t queue_count(struct queue *queue)
{
        return load_relaxed(&queue->count);
}

/* Put a job in; its state is the caller's business. */
void queue_push(struct queue *queue, struct job *job);

/* Take the next one out; NULL when there is none. */
struct job *queue_pop(struct queue *queue);

/* The one that queue_pop would give. */
struct job *queue_peek(struct queue *queue);

/* Take a job out, wherever it stands. */
void queue_unlink(struct queue *queue, struct job *job);

/* The oldest of the lowest class that may be dropped; NULL when all are LIDO_JOB_KEEP. */
struct job *queue_victim(struct queue *queue);

/* Overload: note how long a job that was just popped has waited. */
void queue_note_wait(struct queue *queue, uint64_t waited_ns, uint64_t now_ns);

/* Overload: a job that has stood for too long; NULL when there is none. It is not taken out. */
struct job *queue_overdue(struct queue *queue, uint64_t now_ns);

/* Assert every invariant. */
void queue_check(struct queue *queue);

#endif
