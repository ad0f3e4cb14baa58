/* A program with uv_queue_work, turned into one with lido line by line: the line of libuv stands above the one that takes
 * its place. What is gained: threads of one's own, so that neither file nor name look-ups of the process wait behind this
 * work; a bounded queue; cancelling and submitting from any thread; a report when a job hangs.
 *
 *      worker_from_uv_queue_work FILE...       prints the sum of the bytes of each file, in the order in which they end
 */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include <lido.h>

struct sum {
        /* uv_work_t req; */
        struct lido_job job;
        const char *path;
        unsigned long bytes, total;
        int failed;
};

/* static void add_up(uv_work_t *req) */
static void add_up(struct lido_job *job)
{
        /* struct sum *sum = req->data; */
        struct sum *sum = (struct sum *)job; /* the job is its first member */
        FILE *file = fopen(sum->path, "rb");
        int byte;

        if (!file) {
                sum->failed = 1;
                return;
        }
        while ((byte = getc(file)) != EOF && !lido_job_is_cancelled(job)) {
                sum->total += (unsigned long)byte;
                sum->bytes++;
        }
        fclose(file);
}

/* static void print(uv_work_t *req, int status) */
static void print(struct lido_job *job, int status)
{
        struct sum *sum = (struct sum *)job;

        /* if (status == UV_ECANCELED) */
        if (status != LIDO_OK)
                printf("%s: %s\n", sum->path, lido_strerror(status));
        else if (sum->failed)
                printf("%s: cannot be read\n", sum->path);
        else
                printf("%s: %lu bytes, sum %lu\n", sum->path, sum->bytes, sum->total);
        free(sum);
}

static void report(const struct lido_worker_event *event, void *context)
{
        (void)context;
        if (event->type == LIDO_WORKER_EVENT_STUCK)
                fprintf(stderr, "the job from %s has run for %.1f s\n", event->site, (double)event->age_ns / 1e9);
}

int main(int argc, char **argv)
{
        /* setenv("UV_THREADPOOL_SIZE", "4", 1); */
        struct lido_workers_options options = LIDO_WORKERS_OPTIONS_INIT;
        struct lido_workers *workers;
        struct lido_loop *loop;

        options.max = 4;
        options.stuck_after_ms = 5000;
        options.on_event = report;
        if (lido_workers_open(&workers, &options) != LIDO_OK ||
            lido_loop_open(&loop, uv_default_loop()) != LIDO_OK)
                return EXIT_FAILURE;

        for (int i = 1; i < argc; i++) {
                struct sum *sum = calloc(1, sizeof *sum);
                int rc;

                if (!sum)
                        return EXIT_FAILURE;
                sum->path = argv[i];
                /* sum->req.data = sum; */
                sum->job.run = add_up;
                sum->job.done = print;
                sum->job.loop = loop;
                /* rc = uv_queue_work(uv_default_loop(), &sum->req, add_up, print); */
                rc = lido_submit(workers, &sum->job);
                if (rc != LIDO_OK) {
                        fprintf(stderr, "%s: %s\n", argv[i], lido_strerror(rc));
                        free(sum);
                }
        }

        /* the loop runs while jobs are out, as with uv_queue_work */
        uv_run(uv_default_loop(), UV_RUN_DEFAULT);

        lido_loop_close(loop, NULL, NULL);
        uv_run(uv_default_loop(), UV_RUN_DEFAULT);
        uv_loop_close(uv_default_loop());
        return lido_workers_shutdown(workers, 1000) == LIDO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
