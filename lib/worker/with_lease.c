/* Jobs that wait for an object of a pool before they are queued: no thread waits for a lease. */
#include "worker/executor.h"
#include "worker/group.h"

int lease_job_cancel(struct job *job)
{
        (void)job;
        return LIDO_EINVAL;
}

void lease_jobs_end(struct lido_workers *ws)
{
        (void)ws;
}
