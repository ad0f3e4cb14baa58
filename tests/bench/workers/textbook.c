/* bench/workers/textbook.c - the executor that everybody writes first: a mutex, a condition variable, a list
 * of tasks. */
#define RIVAL_NAME "textbook"
#define RIVAL_CANCELS 1
#define RIVAL_LOOPS 1
#define RIVAL_FREES_EARLY 1

#include "bench/workers/rival.h"

struct own {
        struct task *next, *previous;
        struct task *next_back;
        struct back *back; /* where the result goes; NULL: nowhere */
};

/* Results on their way to a loop. */
struct back {
        pthread_mutex_t lock;
        struct task *first;
        uv_async_t async;
};

static struct {
        pthread_mutex_t lock;
        pthread_cond_t more;
        struct task *first, *last;
} queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, NULL};

#include "bench/workers/load.h"

static void bring_back(struct back *back, struct task *task)
{
        bool was_empty;

        (void)pthread_mutex_lock(&back->lock);
        was_empty = !back->first;
        task->own.next_back = back->first;
        back->first = task;
        (void)pthread_mutex_unlock(&back->lock);
        if (was_empty)
                (void)uv_async_send(&back->async);
}

static void unlink_task(struct task *task)
{
        *(task->own.previous ? &task->own.previous->own.next : &queue.first) = task->own.next;
        *(task->own.next ? &task->own.next->own.previous : &queue.last) = task->own.previous;
}

static void *serve(void *nothing)
{
        for (;;) {
                struct task *task;
                struct back *back;

                (void)pthread_mutex_lock(&queue.lock);
                while (!queue.first)
                        (void)pthread_cond_wait(&queue.more, &queue.lock);
                task = queue.first;
                unlink_task(task);
                (void)pthread_mutex_unlock(&queue.lock);
                back = task->own.back;
                run_task(task);
                if (back)
                        bring_back(back, task);
        }
        return nothing;
}

static void rival_open(unsigned workers)
{
        pthread_t thread;

        while (workers--)
                if (pthread_create(&thread, NULL, serve, NULL) || pthread_detach(thread))
                        abort();
}

static void rival_begin(void)
{
}

static inline void rival_submit(struct task *task)
{
        (void)pthread_mutex_lock(&queue.lock);
        task->own.next = NULL;
        task->own.previous = queue.last;
        *(queue.last ? &queue.last->own.next : &queue.first) = task;
        queue.last = task;
        (void)pthread_mutex_unlock(&queue.lock);
        (void)pthread_cond_signal(&queue.more);
}

static inline void rival_reap(void)
{
        sleep_ns(REAP_NS);
}

/* Only for a task that cannot have begun: the generator keeps every worker busy. */
static inline bool rival_cancel(struct task *task)
{
        (void)pthread_mutex_lock(&queue.lock);
        unlink_task(task);
        (void)pthread_mutex_unlock(&queue.lock);
        task_is_free(task);
        return true;
}

static void take_back(uv_async_t *async)
{
        struct back *back = async->data;
        struct task *task, *next;

        (void)pthread_mutex_lock(&back->lock);
        task = back->first;
        back->first = NULL;
        (void)pthread_mutex_unlock(&back->lock);
        for (; task; task = next) {
                next = task->own.next_back;
                task_is_back(task);
        }
}

static inline void rival_submit_from_loop(uv_loop_t *loop, struct task *task)
{
        struct back *back = loop->data;

        if (!back) {
                back = must_have(calloc(1, sizeof *back));
                (void)pthread_mutex_init(&back->lock, NULL);
                (void)uv_async_init(loop, &back->async, take_back);
                back->async.data = back;
                loop->data = back;
        }
        task->own.back = back;
        rival_submit(task);
}

static void end_back(uv_handle_t *handle)
{
        free(handle->data);
}

static void rival_loop_end(uv_loop_t *loop)
{
        struct back *back = loop->data;

        loop->data = NULL;
        uv_close((uv_handle_t *)&back->async, end_back);
}

static void rival_end(void)
{
}
