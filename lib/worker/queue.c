#include "worker/queue.h"

#include "base/clock.h"

static const uint8_t class_of_priority[] = {
        [LIDO_PRIORITY_NORMAL] = 1,
        [LIDO_PRIORITY_HIGH] = 0,
        [LIDO_PRIORITY_LOW] = 2,
};

void queue_init(struct queue *queue, uint32_t overtake_jobs, uint64_t target_ns, uint64_t interval_ns)
{
        for (int i = 0; i < QUEUE_CLASSES; i++) {
                list_init(&queue->class[i]);
                queue->overtaken[i] = 0;
        }
        queue->filled = 0;
        queue->overtake_jobs = overtake_jobs;
        store_relaxed(&queue->count, 0);
        queue->peak = 0;
        queue->target_ns = target_ns;
        queue->interval_ns = interval_ns;
        queue->interval_end_ns = 0;
        queue->least_ns = 0;
        queue->is_standing = false;
}

/* hot: measured by the throughput workload of the worker benches */
void queue_push(struct queue *queue, struct job *job)
{
        unsigned class = class_of_priority[job->priority];
        uint32_t count = load_relaxed(&queue->count) + 1;

        list_push_back(&queue->class[class], &job->link);
        queue->filled |= 1u << class;
        store_relaxed(&queue->count, count);
        if (count > queue->peak)
                queue->peak = count;
}

void queue_unlink(struct queue *queue, struct job *job)
{
        unsigned class = class_of_priority[job->priority];

        list_unlink(&job->link);
        store_relaxed(&queue->count, load_relaxed(&queue->count) - 1);
        if (list_is_empty(&queue->class[class])) {
                queue->filled &= ~(1u << class);
                queue->overtaken[class] = 0;
        }
        if (queue->filled == 0)
                queue->least_ns = 0;
}

/* The class to serve: the highest, unless a lower one has been overtaken often enough. */
static unsigned class_next(const struct queue *queue)
{
        unsigned highest = (unsigned)__builtin_ctz(queue->filled);

        if ((queue->filled & (queue->filled - 1)) == 0)
                return highest;
        for (unsigned i = highest + 1; i < QUEUE_CLASSES; i++)
                if ((queue->filled & (1u << i)) && queue->overtaken[i] >= queue->overtake_jobs)
                        return i;
        return highest;
}

struct job *queue_peek(struct queue *queue)
{
        if (queue->filled == 0)
                return NULL;
        return list_entry(queue->class[class_next(queue)].next, struct job, link);
}

/* hot: measured by the throughput workload of the worker benches */
struct job *queue_pop(struct queue *queue)
{
        struct job *job;
        unsigned class;

        if (queue->filled == 0)
                return NULL;
        class = class_next(queue);
        job = list_entry(queue->class[class].next, struct job, link);
        queue->overtaken[class] = 0;
        for (unsigned i = class + 1; i < QUEUE_CLASSES; i++)
                if (queue->filled & (1u << i))
                        queue->overtaken[i]++;
        queue_unlink(queue, job);
        return job;
}

struct job *queue_victim(struct queue *queue)
{
        for (int i = QUEUE_CLASSES - 1; i >= 0; i--)
                list_for_each(link, &queue->class[i]) {
                        struct job *job = list_entry(link, struct job, link);

                        if (!(job->flags & LIDO_JOB_KEEP))
                                return job;
                }
        return NULL;
}

/* The rule is that of the database pool of Elixir: an interval whose shortest wait was above the target means a queue that
 * stands, not a burst that passes; an empty queue counts as a wait of nothing (queue_unlink). */
void queue_note_wait(struct queue *queue, uint64_t waited_ns, uint64_t now_ns)
{
        if (queue->filled == 0)
                waited_ns = 0;
        if (now_ns >= queue->interval_end_ns) {
                queue->is_standing = queue->interval_end_ns != 0 && queue->least_ns > queue->target_ns;
                queue->interval_end_ns = now_ns + queue->interval_ns;
                queue->least_ns = waited_ns;
        } else if (waited_ns < queue->least_ns) {
                queue->least_ns = waited_ns;
        }
}

struct job *queue_overdue(struct queue *queue, uint64_t now_ns)
{
        if (!queue->is_standing)
                return NULL;
        for (int i = QUEUE_CLASSES - 1; i >= 0; i--)
                list_for_each(link, &queue->class[i]) {
                        struct job *job = list_entry(link, struct job, link);

                        if (now_ns - job->since_ns <= 2 * queue->target_ns)
                                break;
                        if (!(job->flags & LIDO_JOB_KEEP))
                                return job;
                }
        return NULL;
}

void queue_check(struct queue *queue)
{
        uint32_t count = 0;

        for (unsigned i = 0; i < QUEUE_CLASSES; i++) {
                list_for_each(link, &queue->class[i]) {
                        struct job *job = list_entry(link, struct job, link);

                        lido_assert(class_of_priority[job->priority] == i);
                        lido_assert(link->next->prev == link);
                        count++;
                }
                lido_assert(list_is_empty(&queue->class[i]) == !(queue->filled & (1u << i)));
        }
        lido_assert(count == queue_count(queue));
}
