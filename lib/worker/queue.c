#include "worker/queue.h"

#include "base/clock.h"

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

void queue_adopt(struct queue *queue, struct list *jobs, uint32_t count)
{
        struct list *class = &queue->class[QUEUE_NORMAL];

        count += load_relaxed(&queue->count);
        jobs->next->prev = class->prev;
        class->prev->next = jobs->next;
        jobs->prev->next = class;
        class->prev = jobs->prev;
        list_init(jobs);
        queue->filled |= (uint16_t)(1u << QUEUE_NORMAL);
        store_relaxed(&queue->count, count);
        if (count > queue->peak)
                queue->peak = count;
}

void queue_push_front(struct queue *queue, struct job *job)
{
        struct list *class = &queue->class[queue_class_of(job)];

        queue_push(queue, job);
        list_unlink(&job->link);
        list_push_front(class, &job->link);
}

/* A class that has been overtaken often enough goes before the highest. */
unsigned queue_class_slow(const struct queue *queue, unsigned highest)
{
        for (unsigned i = highest + 1; i < QUEUE_CLASSES; i++)
                if ((queue->filled & (1u << i)) && queue->overtaken[i] >= queue->overtake_jobs)
                        return i;
        return highest;
}

void queue_overtake_slow(struct queue *queue, unsigned class)
{
        for (unsigned i = class + 1; i < QUEUE_CLASSES; i++)
                if ((queue->filled & (1u << i)) && queue->overtaken[i] < UINT16_MAX)
                        queue->overtaken[i]++;
}

struct job *queue_victim(struct queue *queue)
{
        for (int i = QUEUE_CLASSES - 1; i >= 0; i--)
                list_for_each(link, &queue->class[i]) {
                        struct job *job = list_entry(link, struct job, link);

                        if (queue_may_drop(job))
                                return job;
                }
        return NULL;
}

/* The rule is that of the database pool of Elixir: an interval whose shortest wait was above the target means a
 * queue that stands, not a burst that passes; an empty queue counts as a wait of nothing (queue_unlink). */
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
                        if (queue_may_drop(job))
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

                        lido_assert(queue_class_of(job) == i);
                        lido_assert(link->next->prev == link);
                        count++;
                }
                lido_assert(list_is_empty(&queue->class[i]) == !(queue->filled & (1u << i)));
        }
        lido_assert(count == queue_count(queue));
}
