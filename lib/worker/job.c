#include "worker/job.h"

#include "worker/executor.h"
#include "worker/group.h"

#ifdef LIDO_DEBUG
#define TO(state) (1u << JOB_##state)
#define TO_NEW (TO(QUEUED) | TO(HANDED) | TO(DELAYED) | TO(LEASING))
#define TO_OLD (TO(ENDING) | TO(IDLE))
const uint16_t job_arrows[JOB_STATES] = {
        [JOB_IDLE] = TO_NEW,
        [JOB_QUEUED] = TO(RUNNING) | TO(RELEASED) | TO(BATCHED) | TO_OLD,
        [JOB_HANDED] = TO(QUEUED) | TO(RUNNING) | TO(RELEASED) | TO_OLD,
        [JOB_DELAYED] = TO(QUEUED) | TO_OLD,
        [JOB_LEASING] = TO(QUEUED) | TO_OLD,
        [JOB_BATCHED] = TO(QUEUED) | TO(RUNNING) | TO(RELEASED) | TO_OLD,
        [JOB_RUNNING] = TO_OLD,
        [JOB_ENDING] = TO(IDLE),
        [JOB_RELEASED] = TO_NEW,
};
#endif

/* A loop is kept open for a job only from its own thread, where the hold is given back too, after `done`. */
void job_hold_slow(struct job *job)
{
        job->is_held = lido_loop_is_self(job->loop);
        if (job->is_held)
                lido_loop_hold(job->loop);
}

void job_unhold(struct job *job)
{
        if (job->is_held)
                lido_loop_unhold(job->loop);
}

/* `done` may free the job, or submit it again: everything needed later is read first. */
static void call_done(struct job *job, int status)
{
        struct lido_group *group = job->group;

        job_move(job, JOB_IDLE);
        job->done(job_public(job), status);
        if (group)
                group_leave(group);
}

static void end_on_loop(struct lido_post *post)
{
        struct job *job = (struct job *)(void *)((char *)post - offsetof(struct job, post));
        struct lido_loop *loop = job->is_held ? job->loop : NULL;

        call_done(job, job->status);
        if (loop)
                lido_loop_unhold(loop);
}

void job_end(struct job *job, int status)
{
        if (job->is_lease_job && status != LIDO_OK)
                lease_job_abandon(job);
        if (!job->done) {
                struct lido_group *group = job->group;

                job_move(job, JOB_IDLE);
                if (group)
                        group_leave(group);
                return;
        }
        if (!job->loop) {
                call_done(job, status);
                return;
        }
        if (job_state(job) != JOB_ENDING)
                job_move(job, JOB_ENDING);
        job->status = status;
        job->post.next = NULL;
        job->post.run = end_on_loop;
        lido_loop_post(job->loop, &job->post);
}
